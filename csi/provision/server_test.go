package provision

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/csi/provision/kubeapi"
)

// document is an API object as JSON.
type document = map[string]any

// server is an API server that knows what the provisioner asks of one: get, list, watch, create, merge patch
// on the version that was read, delete by UID with finalizers.
type server struct {
	t      *testing.T
	decode runtime.Decoder

	mu       sync.Mutex // guards what follows
	version  int
	objects  map[string]document // by path, e.g. persistentvolumes/x, namespaces/ns/events/y
	watchers map[chan document]string
}

func newServer(t *testing.T) (*server, *kubeapi.Client) {
	scheme := kubeapi.Scheme()
	s := &server{
		t:        t,
		decode:   serializer.NewCodecFactory(scheme).UniversalDeserializer(),
		objects:  map[string]document{},
		watchers: map[chan document]string{},
	}

	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	client, err := kubeapi.New(&rest.Config{Host: web.URL})
	if err != nil {
		t.Fatal(err)
	}

	return s, client
}

var listKinds = map[string]schema.GroupVersionKind{
	"persistentvolumeclaims": corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaimList"),
	"persistentvolumes":      corev1.SchemeGroupVersion.WithKind("PersistentVolumeList"),
	"storageclasses":         storagev1.SchemeGroupVersion.WithKind("StorageClassList"),
	"csinodes":               storagev1.SchemeGroupVersion.WithKind("CSINodeList"),
	"csidrivers":             storagev1.SchemeGroupVersion.WithKind("CSIDriverList"),
	"csistoragecapacities":   storagev1.SchemeGroupVersion.WithKind("CSIStorageCapacityList"),
}

// add stores an object as if somebody had created it.
func (s *server) add(path string, object any) {
	data, err := json.Marshal(object)
	d := document{}
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store("ADDED", path, d)
}

// change merges a patch into an object; remove deletes it as somebody with kubectl would.
func (s *server) change(path string, patch document) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store("MODIFIED", path, merge(s.objects[path], patch))
}

func (s *server) remove(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delete(path)
}

// read decodes an object, and reports whether it is there.
func (s *server) read(path string, into any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.objects[path]
	data, err := json.Marshal(d)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		s.t.Error(err)
	}
	return d != nil
}

func (s *server) events() (all []corev1.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()

	for path, d := range s.objects {
		if data, err := json.Marshal(d); err == nil && strings.Contains(path, "/events/") {
			var e corev1.Event
			if err := json.Unmarshal(data, &e); err != nil {
				s.t.Error(err)
			}

			all = append(all, e)
		}
	}

	return all
}

// store keeps an object and tells the watchers. A deleted object without finalizers is gone. mu is held.
func (s *server) store(kind, path string, d document) {
	s.version++
	meta := d["metadata"].(document)
	meta["resourceVersion"] = fmt.Sprint(s.version)
	s.objects[path] = d
	if finalizers, _ := meta["finalizers"].([]any); meta["deletionTimestamp"] != nil && len(finalizers) == 0 {
		kind = "DELETED"
		delete(s.objects, path)
	}

	for w, resource := range s.watchers {
		if resource == resourceOf(path) {
			w <- document{"type": kind, "object": clone(d)}
		}
	}
}

func (s *server) delete(path string) {
	if d := clone(s.objects[path]); d != nil {
		d["metadata"].(document)["deletionTimestamp"] = metav1.Now()
		s.store("MODIFIED", path, d)
	}
}

func resourceOf(path string) string {
	parts := strings.Split(path, "/")
	if parts[0] == "namespaces" {
		return parts[2]
	}
	return parts[0]
}

func clone(d document) document { return merge(d, nil) }

// merge applies a JSON merge patch (RFC 7386) and leaves both arguments as they were.
func merge(d, patch document) document {
	if d == nil && patch == nil {
		return nil
	}

	out := document{}
	for k, v := range d {
		if inner, ok := v.(document); ok {
			v = clone(inner)
		}

		out[k] = v
	}

	for k, v := range patch {
		inner, isMap := v.(document)
		have, _ := out[k].(document)
		switch {
		case v == nil:
			delete(out, k)
		case isMap:
			out[k] = merge(have, inner)
		default:
			out[k] = v
		}
	}

	return out
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/apis/storage.k8s.io/v1/")
	path = strings.TrimSuffix(path, "/status")
	if r.URL.Query().Get("watch") != "" {
		s.watch(w, r, path)
		return
	}

	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	switch r.Method {
	case http.MethodGet:
		if !strings.Contains(path, "/") {
			kind := listKinds[path]
			answer(w, http.StatusOK, document{
				"apiVersion": kind.GroupVersion().String(),
				"kind":       kind.Kind,
				"metadata":   document{"resourceVersion": fmt.Sprint(s.version)},
				"items":      s.list(path),
			})

			return
		}

	case http.MethodPost:
		d, name := s.parse(body)
		if path += "/" + name; s.objects[path] != nil {
			fail(w, http.StatusConflict, "AlreadyExists")
			return
		}

		s.store("ADDED", path, d)

	case http.MethodPatch:
		s.patch(w, path, body, r.Header.Get("Content-Type") == string(types.ApplyPatchType))
		return
	case http.MethodDelete:
		s.delete(path)
	}

	if s.objects[path] == nil && r.Method != http.MethodDelete {
		fail(w, http.StatusNotFound, "NotFound")
		return
	}

	answer(w, http.StatusOK, s.objects[path])
}

// parse decodes an object from protobuf.
func (s *server) parse(body []byte) (d document, name string) {
	object, kind, err := s.decode.Decode(body, nil, nil)
	if err != nil {
		s.t.Error(err)
		return document{"metadata": document{}}, ""
	}

	data, err := json.Marshal(object)
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	if err != nil {
		s.t.Error(err)
	}

	d["kind"], d["apiVersion"] = kind.Kind, kind.GroupVersion().String()
	return d, object.(metav1.Object).GetName()
}

func (s *server) patch(w http.ResponseWriter, path string, body []byte, apply bool) {
	var patch document
	if err := json.Unmarshal(body, &patch); err != nil {
		s.t.Error(err)
	}

	have := s.objects[path]
	if have == nil && apply {
		s.store("ADDED", path, patch)
		answer(w, http.StatusCreated, patch)
		return
	}

	if have == nil {
		fail(w, http.StatusNotFound, "NotFound")
		return
	}

	meta, _ := patch["metadata"].(document)
	if version := meta["resourceVersion"]; version != nil &&
		version != have["metadata"].(document)["resourceVersion"] {
		fail(w, http.StatusConflict, "Conflict")
		return
	}

	now := merge(have, patch)
	s.store("MODIFIED", path, now)
	answer(w, http.StatusOK, now)
}

func (s *server) list(resource string) []document {
	items := []document{}
	for path, d := range s.objects {
		if resourceOf(path) == resource {
			items = append(items, d)
		}
	}
	return items
}

// watch streams changes. Streaming of the first list, too, is refused, as servers before 1.32 do.
func (s *server) watch(w http.ResponseWriter, r *http.Request, resource string) {
	if r.URL.Query().Get("sendInitialEvents") != "" {
		fail(w, http.StatusUnprocessableEntity, "Invalid")
		return
	}

	changes := make(chan document, 1000)
	s.mu.Lock()
	s.watchers[changes] = resource

	// what came between list and watch is told twice rather than not at all
	for _, d := range s.list(resource) {
		changes <- document{"type": "MODIFIED", "object": clone(d)}
	}

	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()

		delete(s.watchers, changes)
	}()

	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flusher := w.(http.Flusher)
	flusher.Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case change := <-changes:
			if json.NewEncoder(w).Encode(change) != nil {
				return
			}

			flusher.Flush()
		}
	}
}

func answer(w http.ResponseWriter, code int, d any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(d)
}

func fail(w http.ResponseWriter, code int, reason string) {
	answer(w, code, document{
		"kind":       "Status",
		"apiVersion": "v1",
		"status":     "Failure",
		"code":       code,
		"reason":     reason,
		"message":    reason,
	})
}
