package objects_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/node/objects"
)

// server is an API server with one ConfigMap, ns/m, that can be listed and watched by name.
type server struct {
	mu      sync.Mutex
	value   *v1.ConfigMap
	lists   int
	forbid  bool
	opened  chan chan any // each new watch
	current chan any      // the watch that gets events
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path != "/api/v1/namespaces/ns/configmaps" ||
		r.URL.Query().Get("fieldSelector") != "metadata.name=m" {
		if strings.Contains(r.URL.Path, "configmaps") {
			w.WriteHeader(http.StatusNotFound)
		}

		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "v1",
			"kind":       "List",
			"metadata":   map[string]any{"resourceVersion": "1"},
			"items":      []any{},
		})

		return
	}

	s.mu.Lock()
	if s.forbid {
		s.mu.Unlock()
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(apierrors.NewForbidden(v1.Resource("configmaps"), "m", nil).Status())
		return
	}

	if r.URL.Query().Get("watch") == "" {
		s.lists++
		list := v1.ConfigMapList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"},
			ListMeta: metav1.ListMeta{ResourceVersion: "10"},
		}
		if s.value != nil {
			list.Items = append(list.Items, *s.value)
		}

		s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(list)
		return
	}

	events := make(chan any, 9)
	s.mu.Unlock()
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	s.opened <- events
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-events:
			if !ok {
				return
			}

			_ = json.NewEncoder(w).Encode(e)
			w.(http.Flusher).Flush()
		}
	}
}

func configMap(version, value string) *v1.ConfigMap {
	return &v1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{
			Name:            "m",
			Namespace:       "ns",
			ResourceVersion: version,
		}, Data: map[string]string{"k": value}}
}

// send gives an event to the one watch, once it is there.
func (s *server) send(t *testing.T, kind string, obj any) {
	t.Helper()
	if s.current == nil {
		select {
		case s.current = <-s.opened:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody watches")
		}
	}

	s.current <- map[string]any{"type": kind, "object": obj}
	if kind == "ERROR" {
		close(s.current)
		s.current = nil
	}
}

func start(t *testing.T, s *server) (*objects.Cache, chan types.UID) {
	t.Helper()
	s.opened = make(chan chan any, 9)
	backend := httptest.NewServer(s)
	client, err := kube.New(kube.At(backend.URL))
	if err != nil {
		t.Fatal(err)
	}

	notified := make(chan types.UID, 99)
	cache := objects.New(client, func(uid types.UID) { notified <- uid }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { cache.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done; backend.CloseClientConnections(); backend.Close() })
	return cache, notified
}

func pod(uid types.UID) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: string(uid), UID: uid}}
	p.Spec.Volumes = []v1.Volume{
		{
			Name: "v",
			VolumeSource: v1.VolumeSource{
				ConfigMap: &v1.ConfigMapVolumeSource{
					LocalObjectReference: v1.LocalObjectReference{Name: "m"},
				},
			},
		},
	}

	return p
}

func await(t *testing.T, notified chan types.UID) types.UID {
	t.Helper()
	select {
	case uid := <-notified:
		return uid
	case <-time.After(10 * time.Second):
		t.Fatal("no pod was notified")
		return ""
	}
}

func TestAnObjectIsFollowedWhilePodsNameIt(t *testing.T) {
	s := &server{}
	cache, notified := start(t, s)
	cache.Register(pod("u1"))
	cache.Register(pod("u1"))
	if _, err := cache.ConfigMap(t.Context(), "ns", "m"); !apierrors.IsNotFound(err) {
		t.Errorf("a map that is not there: %v", err)
	}

	s.send(t, "ADDED", configMap("11", "1"))
	if uid := await(t, notified); uid != "u1" {
		t.Errorf("notified %s", uid)
	}

	m, err := cache.ConfigMap(t.Context(), "ns", "m")
	if err != nil || m.Data["k"] != "1" {
		t.Fatalf("%v %v", m, err)
	}

	// Another pod shares the watch.
	cache.Register(pod("u2"))
	s.send(t, "MODIFIED", configMap("12", "2"))
	if a, b := await(t, notified), await(t, notified); a == b {
		t.Errorf("%s was notified twice", a)
	}
	if m, _ := cache.ConfigMap(t.Context(), "ns", "m"); m.Data["k"] != "2" {
		t.Error("the change is not there")
	}

	// The server has lost history: list again.
	s.mu.Lock()
	s.value = configMap("99", "3")
	before := s.lists
	s.mu.Unlock()
	s.send(t, "ERROR", apierrors.NewResourceExpired("too old").Status())
	await(t, notified)
	if m, _ := cache.ConfigMap(t.Context(), "ns", "m"); m.Data["k"] != "3" || before != 1 || s.lists != 2 {
		t.Errorf("after 410: %v, %d lists", m.Data, s.lists)
	}

	cache.Unregister("u1")
	cache.Unregister("u2")
	if _, err := cache.ConfigMap(t.Context(), "ns", "m"); err == nil || s.lists != 2 {
		t.Errorf("an object that nobody names is not read again: %v", err)
	}
}

func TestARefusalIsAnErrorAtOnce(t *testing.T) {
	s := &server{forbid: true}
	cache, notified := start(t, s)
	cache.Register(pod("u1"))
	if _, err := cache.ConfigMap(t.Context(), "ns", "m"); !apierrors.IsForbidden(err) {
		t.Errorf("error %v", err)
	}

	s.mu.Lock()
	s.forbid, s.value = false, configMap("1", "1")
	s.mu.Unlock()
	await(t, notified)
	if m, err := cache.ConfigMap(t.Context(), "ns", "m"); err != nil || m.Data["k"] != "1" {
		t.Errorf("later: %v %v", m, err)
	}
}
