package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// api speaks the part of the Kubernetes API that trivet-netd uses: list and watch of Nodes with resource
// versions, initial events and bookmarks, ServiceCIDRs, and Events. The real API server is in e2e.
type api struct {
	t       *testing.T
	mu      sync.Mutex
	version int
	nodes   map[string]corev1.Node
	events  map[string]corev1.Event
	history []change
	news    chan struct{} // closed at every change
}

const serviceCIDR = "10.244.96.0/20"

type change struct {
	version int
	kind    watch.EventType
	node    corev1.Node
}

func newAPI(t *testing.T) *api {
	return &api{
		t:       t,
		version: 1,
		nodes:   map[string]corev1.Node{},
		events:  map[string]corev1.Event{},
		news:    make(chan struct{}),
	}
}

func (a *api) put(name string, cidrs, addresses []string) {
	n := corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
	}
	if n.Spec.PodCIDRs = cidrs; len(cidrs) > 0 {
		n.Spec.PodCIDR = cidrs[0]
	}

	for _, ip := range addresses {
		n.Status.Addresses = append(
			n.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip},
		)
	}

	a.mu.Lock()
	defer a.mu.Unlock()

	kind := watch.Added
	n.UID, n.CreationTimestamp = types.UID("uid-"+name), metav1.NewTime(time.Unix(int64(a.version), 0))
	if before, ok := a.nodes[name]; ok {
		kind = watch.Modified
		n.UID, n.CreationTimestamp = before.UID, before.CreationTimestamp
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
	switch what := r.Method + " " + r.URL.Path; what {
	case "GET /api/v1/nodes":
		a.serveNodes(w, r)
	case "GET /apis/networking.k8s.io/v1/servicecidrs":
		a.serveServices(w, r)
	case "POST /api/v1/namespaces/default/events":
		a.takeEvent(w, r)
	default:
		a.t.Errorf("trivet-netd asks %s", what)
		http.NotFound(w, r)
	}
}

// serveServices has one network of Services and never another one.
func (a *api) serveServices(w http.ResponseWriter, r *http.Request) {
	meta := metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDR"}
	item := networkingv1.ServiceCIDR{TypeMeta: meta,
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", ResourceVersion: "1"}}
	item.Spec.CIDRs = []string{serviceCIDR}

	// as a server without initial events: the client lists then
	if r.URL.Query().Get("watch") != "" {
		if r.URL.Query().Get("sendInitialEvents") == "true" {
			http.Error(w, "no initial events", http.StatusBadRequest)
			return
		}

		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return
	}

	list := networkingv1.ServiceCIDRList{TypeMeta: metav1.TypeMeta{APIVersion: meta.APIVersion,
		Kind: "ServiceCIDRList"}}
	list.ResourceVersion, list.Items = "1", []networkingv1.ServiceCIDR{item}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(list); err != nil {
		a.t.Log("list:", err)
	}
}

// takeEvent keeps an Event, of which there can be one with a name.
func (a *api) takeEvent(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var event corev1.Event
	if err == nil {
		_, _, err = scheme.Codecs.UniversalDeserializer().Decode(body, nil, &event)
	}
	if err != nil {
		a.t.Error("event:", err)
	}

	a.mu.Lock()
	defer a.mu.Unlock()

	if _, there := a.events[event.Name]; there {
		a.t.Errorf("Event %s is written again", event.Name)
	}

	a.events[event.Name] = event
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(event)
}

// eventOf waits for an Event about a Node.
func (w *world) eventOf(node string) (found corev1.Event) {
	w.t.Helper()
	w.await("an Event of node "+node, func() bool {
		w.api.mu.Lock()
		defer w.api.mu.Unlock()

		for _, e := range w.api.events {
			if e.InvolvedObject.Name == node {
				found = e
				return true
			}
		}

		return false
	})

	return found
}

func (a *api) serveNodes(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Query().Get("watch") == "" {
		a.mu.Lock()
		list := corev1.NodeList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"},
			Items:    slices.Collect(maps.Values(a.nodes)),
		}

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
		return json.NewEncoder(w).Encode(metav1.WatchEvent{
			Type:   string(kind),
			Object: runtime.RawExtension{Object: &n},
		})
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

		mark := corev1.Node{TypeMeta: metav1.TypeMeta{
			APIVersion: "v1",
			Kind:       "Node",
		}, ObjectMeta: metav1.ObjectMeta{ResourceVersion: fmt.Sprint(at),
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
