package kubeletapi

import (
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status is what /statusz tells about the process.
type Status struct {
	Version string // 1.37.2
	Started time.Time
}

// The groups of the structured answers (k8s.io/apiserver/pkg/server/statusz, .../flagz).
const (
	zpagesGroup = "config.k8s.io"
	component   = "kubelet"
)

// zpage is the head of an answer.
type zpage struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
}

type statusz struct {
	zpage
	StartTime     metav1.Time `json:"startTime"`
	UptimeSeconds int64       `json:"uptimeSeconds"`
	GoVersion     string      `json:"goVersion"`
	BinaryVersion string      `json:"binaryVersion"`
	Paths         []string    `json:"paths"`
}

type flagz struct {
	zpage
	Flags map[string]string `json:"flags,omitempty"`
}

func (s *Server) statusz(w http.ResponseWriter, r *http.Request) {
	up := time.Since(s.cfg.Statusz.Started)
	answer := statusz{
		StartTime:     metav1.NewTime(s.cfg.Statusz.Started),
		UptimeSeconds: int64(up.Seconds()),
		GoVersion:     runtime.Version(),
		BinaryVersion: s.cfg.Statusz.Version,
		Paths:         s.paths(),
	}

	text := func(w io.Writer) {
		fmt.Fprintf(w, "\nStarted: %s\n", answer.StartTime.Format(time.UnixDate))
		fmt.Fprintf(w, "Up: %d hr %02d min %02d sec\n",
			answer.UptimeSeconds/3600, answer.UptimeSeconds/60%60, answer.UptimeSeconds%60)
		fmt.Fprintf(w, "Go version: %s\nBinary version: %s\n\nPaths: %s\n",
			answer.GoVersion, answer.BinaryVersion, strings.Join(answer.Paths, " "))
	}

	writeZPage(w, r, "Statusz", &answer.zpage, &answer, text)
}

// paths are the endpoints beside those of pods.
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

func (s *Server) flagz(w http.ResponseWriter, r *http.Request) {
	answer := flagz{Flags: s.cfg.Flagz}
	text := func(w io.Writer) {
		for _, name := range slices.Sorted(maps.Keys(answer.Flags)) {
			fmt.Fprintf(w, "%s: %s\n", name, answer.Flags[name])
		}
	}
	writeZPage(w, r, "Flagz", &answer.zpage, &answer, text)
}

// writeZPage answers in text, or as an object if the caller asks for a version of it.
func writeZPage(w http.ResponseWriter, r *http.Request, kind string, head *zpage, object any,
	text func(io.Writer)) {
	version, ok := accepted(r.Header.Get("Accept"), kind)
	switch {
	case !ok:
		http.Error(w, fmt.Sprintf("only the following media types are accepted: text/plain, "+
			"application/json;as=%s;g=%s;v=v1beta1", kind, zpagesGroup), http.StatusNotAcceptable)
	case version == "":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "\n%s %s\nWarning: This endpoint is not meant to be machine parseable, has no "+
			"formatting compatibility guarantees and is for debugging purposes only.\n", component,
			strings.ToLower(kind))
		text(w)

	default:
		head.TypeMeta = metav1.TypeMeta{Kind: kind, APIVersion: zpagesGroup + "/" + version}
		head.Name = component
		writeJSON(w, object)
	}
}

// accepted is the version of the object that an Accept header asks for, empty for text.
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
