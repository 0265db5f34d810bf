package kubetest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// stream is one watch.
type stream struct {
	query  query
	events chan map[string]any
	once   sync.Once
	ended  chan struct{}
}

func (w *stream) end() { w.once.Do(func() { close(w.ended) }) }

func event(kind string, object any) map[string]any {
	return map[string]any{"type": kind, "object": object}
}

// publish sends a change to the watches that it concerns: an object that has come into or left a selection
// has been added to it or deleted from it. The caller holds the lock.
func (s *Server) publish(at place, kind string, before, now document) {
	for w := range s.watches {
		was := before != nil && w.query.selects(at, before)
		is := kind != "DELETED" && w.query.selects(at, now)
		switch {
		case was && is:
			w.events <- event("MODIFIED", now.Object)
		case is:
			w.events <- event("ADDED", now.Object)
		case was:
			w.events <- event("DELETED", now.Object)
		}
	}
}

// watchBuffer is how many events a watch may be behind.
const watchBuffer = 1000

// serveWatch sends events until the client goes away or the test ends the watches.
func (s *Server) serveWatch(w http.ResponseWriter, r *http.Request, q query) {
	kind, err := q.kind()
	if err != nil {
		refuse(w, err)
		return
	}

	if q.at.Name != "" {
		q.fields = metav1.ObjectNameField + "=" + q.at.Name
	}

	out := &stream{query: q, events: make(chan map[string]any, watchBuffer), ended: make(chan struct{})}

	s.mu.Lock()
	if from, _ := strconv.ParseInt(q.options.ResourceVersion, 10, 64); from > s.version {
		s.mu.Unlock()
		refuse(w, apierrors.NewTimeoutError("Too large resource version", 1))
		return
	}
	s.catchUp(out, kind.Kind)
	s.watches[out] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watches, out)
		s.mu.Unlock()
	}()

	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := w.(http.Flusher)
	flush.Flush()
	encoder := json.NewEncoder(w)
	for {
		select {
		case <-r.Context().Done():
			return
		case <-out.ended:
			return
		case e := <-out.events:
			if encoder.Encode(e) != nil {
				return
			}

			flush.Flush()
		}
	}
}

// catchUp sends a new watch what has happened since the version that it begins from, or what there is. The
// caller holds the lock.
func (s *Server) catchUp(w *stream, kind string) {
	q := w.query
	from, _ := strconv.ParseInt(q.options.ResourceVersion, 10, 64)
	newer := func(doc document) bool {
		version, _ := strconv.ParseInt(doc.GetResourceVersion(), 10, 64)
		return version > from
	}

	for _, old := range s.gone {
		if !q.initial && newer(old.doc) && q.selects(old.at, old.doc) {
			w.events <- event("DELETED", old.doc.Object)
		}
	}

	for _, doc := range s.selected(q) {
		if q.initial || newer(doc) {
			w.events <- event("ADDED", doc.Object)
		}
	}

	if !q.initial {
		return
	}

	w.events <- event("BOOKMARK", map[string]any{
		"apiVersion": q.version.String(),
		"kind":       kind,
		"metadata": map[string]any{
			"resourceVersion": strconv.FormatInt(s.version, 10),
			"annotations":     map[string]any{metav1.InitialEventsAnnotationKey: "true"},
		},
	})
}
