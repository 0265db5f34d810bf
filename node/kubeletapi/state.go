package kubeletapi

import (
	"net/http"
	"strconv"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok"))
}

// pods lists the pods of the node.
func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, podList(s.cfg.Pods.Pods(), func(*v1.Pod) bool { return true }))
}

func (s *Server) runningPods(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, podList(s.cfg.Pods.Pods(), func(p *v1.Pod) bool { return p.Status.Phase == v1.PodRunning }))
}

func podList(pods []*v1.Pod, keep func(*v1.Pod) bool) *v1.PodList {
	list := &v1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []v1.Pod{}}
	for _, p := range pods {
		if keep(p) {
			list.Items = append(list.Items, *p)
		}
	}
	return list
}

func (s *Server) configz(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Configz == nil {
		http.NotFound(w, r)
		return
	}
	writeJSON(w, map[string]any{"kubeletconfig": s.cfg.Configz})
}

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Stats == nil {
		http.Error(w, "statistics are not available", http.StatusNotImplemented)
		return
	}
	few, _ := strconv.ParseBool(r.URL.Query().Get("only_cpu_and_memory"))
	summary, err := s.cfg.Stats.Summary(r.Context(), few)
	if err != nil {
		fail(w, err)
		return
	}
	writeJSON(w, summary)
}

func (s *Server) metrics(set string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch set {
		case "", "resource", "cadvisor", "probes":
		default:
			http.NotFound(w, r)
			return
		}

		if s.cfg.Stats == nil {
			http.Error(w, "metrics are not available", http.StatusNotImplemented)
			return
		}

		text, err := s.cfg.Stats.Metrics(r.Context(), set)
		if err != nil {
			fail(w, err)
			return
		}

		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(text)
	}
}
