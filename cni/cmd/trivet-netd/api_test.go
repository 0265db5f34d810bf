package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// api speaks the part of the Kubernetes API that trivet-netd uses: list and watch of Nodes with resource versions, initial events and
// bookmarks. The real API server is in e2e.
type api struct {
	t       *testing.T
	mu      sync.Mutex
	version int
	nodes   map[string]corev1.Node
	history []change
	news    chan struct{} // closed at every change
}

type change struct {
	version int
	kind    watch.EventType
	node    corev1.Node
}

func newAPI(t *testing.T) *api {
	return &api{t: t, version: 1, nodes: map[string]corev1.Node{}, news: make(chan struct{})}
}

func (a *api) put(name string, cidrs, addresses []string) {
	n := corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	if n.Spec.PodCIDRs = cidrs; len(cidrs) > 0 {
		n.Spec.PodCIDR = cidrs[0]
	}
	for _, ip := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	kind := watch.Added
	if _, ok := a.nodes[name]; ok {
		kind = watch.Modified
	}
	a.happen(kind, n)
	a.nodes[name] = a.history[len(a.history)-1].node
}

func (a *api) remove(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.happen(watch.Deleted, a.nodes[name])
	delete(a.nodes, name)
}

func (a *api) happen(kind watch.EventType, n corev1.Node) {
	a.version++
	n.ResourceVersion = strconv.Itoa(a.version)
	a.history = append(a.history, change{a.version, kind, n})
	close(a.news)
	a.news = make(chan struct{})
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/v1/nodes" || r.Method != http.MethodGet {
		a.t.Errorf("trivet-netd asks %s %s", r.Method, r.URL)
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("watch") == "" {
		a.mu.Lock()
		list := corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, Items: slices.Collect(maps.Values(a.nodes))}
		list.ResourceVersion = strconv.Itoa(a.version)
		a.mu.Unlock()
		if err := json.NewEncoder(w).Encode(list); err != nil {
			a.t.Log("list:", err)
		}
		return
	}
	if err := a.watch(w, r); err != nil && r.Context().Err() == nil {
		a.t.Log("watch:", err)
	}
}

func (a *api) watch(w http.ResponseWriter, r *http.Request) error {
	send := func(kind watch.EventType, n corev1.Node) error {
		return json.NewEncoder(w).Encode(metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Object: &n}})
	}
	at, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		a.mu.Lock()
		first := slices.Collect(maps.Values(a.nodes))
		at = a.version
		a.mu.Unlock()
		for _, n := range first {
			if err := send(watch.Added, n); err != nil {
				return err
			}
		}
		mark := corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{ResourceVersion: fmt.Sprint(at),
			Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}}
		if err := send(watch.Bookmark, mark); err != nil {
			return err
		}
	}
	for {
		a.mu.Lock()
		news, history := a.news, a.history
		a.mu.Unlock()
		for _, c := range history {
			if c.version <= at {
				continue
			}
			if err := send(c.kind, c.node); err != nil {
				return err
			}
			at = c.version
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return nil
		}
	}
}
