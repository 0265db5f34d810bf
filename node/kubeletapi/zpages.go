package kubeletapi

import (
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status is what /statusz says of the process.
type Status struct {
	Version string // 1.37.2
	Started time.Time
}

// The group of the structured answers (k8s.io/apiserver/pkg/server/statusz, .../flagz), and the name of who
// answers.
const (
	zpagesGroup = "config.k8s.io"
	component   = "kubelet"
)

// zpage is an answer that is a text or an object, as the caller wants.
type zpage interface {
	writeText(w io.Writer)
	// head returns what all objects begin with.
	head() *zpageHead
}

type zpageHead struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
}

func (h *zpageHead) head() *zpageHead { return h }

// statuszPage is version v1beta1, which v1alpha1 equals.
type statuszPage struct {
	zpageHead
	StartTime     metav1.Time `json:"startTime"`
	UptimeSeconds int64       `json:"uptimeSeconds"`
	GoVersion     string      `json:"goVersion"`
	BinaryVersion string      `json:"binaryVersion"`
	Paths         []string    `json:"paths"`
}

func (s *Server) statusz(w http.ResponseWriter, r *http.Request) error {
	return writeZPage(w, r, "Statusz", &statuszPage{
		StartTime:     metav1.NewTime(s.cfg.Statusz.Started),
		UptimeSeconds: int64(time.Since(s.cfg.Statusz.Started).Seconds()),
		GoVersion:     goruntime.Version(),
		BinaryVersion: s.cfg.Statusz.Version,
		Paths:         s.paths(),
	})
}

func (p *statuszPage) writeText(w io.Writer) {
	hours, minutes, seconds := p.UptimeSeconds/3600, p.UptimeSeconds/60%60, p.UptimeSeconds%60
	fmt.Fprintf(w, "\nStarted: %s\n", p.StartTime.Format(time.UnixDate))
	fmt.Fprintf(w, "Up: %d hr %02d min %02d sec\n", hours, minutes, seconds)
	fmt.Fprintf(w, "Go version: %s\nBinary version: %s\n\n", p.GoVersion, p.BinaryVersion)
	fmt.Fprintf(w, "Paths: %s\n", strings.Join(p.Paths, " "))
}

// paths returns the endpoints besides those of pods.
func (s *Server) paths() []string {
	out := []string{"/healthz", "/metrics", "/statusz"}
	if s.cfg.Configz != nil {
		out = append(out, "/configz")
	}
	if s.cfg.Flagz != nil {
		out = append(out, "/flagz")
	}
	slices.Sort(out)
	return out
}

// flagzPage is version v1beta1, which v1alpha1 equals.
type flagzPage struct {
	zpageHead
	Flags map[string]string `json:"flags,omitempty"`
}

func (s *Server) flagz(w http.ResponseWriter, r *http.Request) error {
	return writeZPage(w, r, "Flagz", &flagzPage{Flags: s.cfg.Flagz})
}

func (p *flagzPage) writeText(w io.Writer) {
	for _, name := range slices.Sorted(maps.Keys(p.Flags)) {
		fmt.Fprintf(w, "%s: %s\n", name, p.Flags[name])
	}
}

// writeZPage answers in text, or with an object if the caller asks for a version of it.
func writeZPage(w http.ResponseWriter, r *http.Request, kind string, page zpage) error {
	version, ok := accepted(r.Header.Get("Accept"), kind)
	if !ok {
		return &httpError{http.StatusNotAcceptable, fmt.Sprintf(
			"only the following media types are accepted: "+
				"text/plain, application/json;as=%s;g=%s;v=v1beta1",
			kind,
			zpagesGroup,
		)}
	}

	if version != "" {
		head := page.head()
		head.TypeMeta = metav1.TypeMeta{Kind: kind, APIVersion: zpagesGroup + "/" + version}
		head.Name = component
		return writeJSON(w, page)
	}

	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "\n%s %s\nWarning: This endpoint is not meant to be machine parseable, has no "+
		"formatting compatibility guarantees and is for debugging purposes only.\n",
		component, strings.ToLower(kind))
	page.writeText(w)
	return nil
}

// accepted returns the version of the object that an Accept header asks for, empty for text. It returns false
// when nothing that there is would do.
func accepted(header, kind string) (version string, ok bool) {
	if strings.TrimSpace(header) == "" {
		return "", true
	}

	for want := range strings.SplitSeq(header, ",") {
		media, params, err := mime.ParseMediaType(want)
		if err != nil {
			continue
		}

		switch media {
		case "text/plain", "text/*", "*/*":
			return "", true
		case "application/json":
			known := params["v"] == "v1alpha1" || params["v"] == "v1beta1"
			if params["as"] == kind && params["g"] == zpagesGroup && known {
				return params["v"], true
			}
		}
	}

	return "", false
}
