package kubeletapi

import (
	"net/http"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/health"
)

// pods lists the pods of the node.
func (s *Server) pods(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, podList(s.cfg.Pods.Pods(), func(*v1.Pod) bool { return true }))
}

func (s *Server) runningPods(w http.ResponseWriter, _ *http.Request) error {
	runs := func(p *v1.Pod) bool { return p.Status.Phase == v1.PodRunning }
	return writeJSON(w, podList(s.cfg.Pods.Pods(), runs))
}

func podList(pods []*v1.Pod, keep func(*v1.Pod) bool) *v1.PodList {
	list := &v1.PodList{
		TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"},
		Items:    []v1.Pod{},
	}
	for _, p := range pods {
		if keep(p) {
			list.Items = append(list.Items, *p)
		}
	}
	return list
}

func (s *Server) configz(w http.ResponseWriter, _ *http.Request) error {
	if s.cfg.Configz == nil {
		return notFound("404 page not found")
	}
	return writeJSON(w, map[string]any{"kubeletconfig": s.cfg.Configz})
}

func (s *Server) summary(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Stats == nil {
		return &httpError{http.StatusNotImplemented, "statistics are not available"}
	}
	onlyCPUAndMemory, _ := strconv.ParseBool(r.URL.Query().Get("only_cpu_and_memory"))
	summary, err := s.cfg.Stats.Summary(r.Context(), onlyCPUAndMemory)
	if err != nil {
		return err
	}
	return writeJSON(w, summary)
}

// slis writes /metrics/slis: what checks of the agent's health have shown, by the names that Kubernetes'
// components have for it (KEP-3466).
func (s *Server) slis(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", exposition.ContentType)
	out := exposition.NewWriter(w)
	counts := s.cfg.Health.Counts()
	pairs := func(c health.Counts) exposition.Labels {
		return exposition.Pairs("name", c.Name, "type", "healthz")
	}

	out.Family("kubernetes_healthcheck", exposition.Gauge, "Whether a check has shown health, by its name.")
	for _, c := range counts {
		healthy := uint64(1)
		if c.Failed {
			healthy = 0
		}
		out.Uint(healthy, time.Time{}, pairs(c))
	}

	out.Family("kubernetes_healthchecks_total", exposition.Counter, "Number of checks by what they showed.")
	for _, c := range counts {
		out.Uint(c.Successes, time.Time{}, pairs(c), `status="success"`)
		if c.Failures > 0 {
			out.Uint(c.Failures, time.Time{}, pairs(c), `status="error"`)
		}
	}

	// A client that does not read its answer has lost nothing but that.
	_ = out.Flush()
}

// metrics answers with the page that the path names.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	page := s.cfg.Metrics[r.PathValue("page")]
	if page == nil {
		return notFound("404 page not found")
	}
	page.ServeHTTP(w, r)
	return nil
}
