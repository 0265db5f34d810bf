// Package kubetest is an API server for tests, in memory and over HTTP: it stores, patches, selects and
// watches objects of all built-in kinds as kube-apiserver does, with resource versions, UIDs and
// preconditions. It checks no permissions, fills in no defaults and runs no controllers. A test changes
// objects as others of the cluster would (Put, Remove), reads what the tested code has written (Get), and
// lets calls fail (FailOn).
package kubetest

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/trivet-node/trivet/internal/kube"
)

// Server is the API server. Make it with Start.
type Server struct {
	t      *testing.T
	http   *httptest.Server
	groups groups

	// mu guards the rest.
	mu      sync.Mutex
	version int64
	objects map[place]document
	gone    []tombstone
	watches map[*stream]bool
	fail    map[string]*failure
	answers map[string]Answer
	calls   []string
}

// Answer makes the response to the creation of an object that is not stored: a review or a token.
type Answer func(request runtime.Object) runtime.Object

// failure is how calls fail: each of them, or as many as are left.
type failure struct {
	err  *apierrors.StatusError
	left int // -1: all
}

// Know lets servers keep kinds that are not built in. It is to be called before the first server is started.
func Know(add func(*runtime.Scheme) error) error { return add(scheme.Scheme) }

// Start runs a server until the test ends.
func Start(t *testing.T) *Server {
	t.Helper()
	s := &Server{
		t:       t,
		version: 100,
		objects: map[place]document{},
		watches: map[*stream]bool{},
		fail:    map[string]*failure{},
		answers: map[string]Answer{},
		groups:  groups{versions: map[string][]string{}},
	}

	s.http = httptest.NewServer(s)
	t.Cleanup(func() {
		s.http.CloseClientConnections()
		s.http.Close()
	})

	return s
}

// URL is where the server is.
func (s *Server) URL() string { return s.http.URL }

// Config is the configuration of a client of the server.
func (s *Server) Config() kube.Config { return kube.At(s.http.URL) }

// Client returns a client of the server.
func (s *Server) Client() *kube.Client {
	s.t.Helper()
	client, err := kube.New(s.Config())
	if err != nil {
		s.t.Fatal(err)
	}
	return client
}

// FailOn lets calls fail: all with times -1, else as many. A call is a verb and a resource: "get nodes",
// "patch pods/status", "watch secrets". A nil error ends the failures of a call.
func (s *Server) FailOn(call string, times int, err *apierrors.StatusError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.fail, call)
	if err != nil && times != 0 {
		s.fail[call] = &failure{err: err, left: times}
	}
}

// AnswerOn answers calls such as "create tokenreviews" and "create serviceaccounts/token".
func (s *Server) AnswerOn(call string, answer Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[call] = answer
}

// Calls returns the calls so far, such as "patch pods/status default/a".
func (s *Server) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls...)
}

// EndWatches ends all watches, as a restart of the server does.
func (s *Server) EndWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	endWatches(s)
}

// endWatches is EndWatches for callers that hold the lock.
func endWatches(s *Server) {
	for w := range s.watches {
		w.end()
		delete(s.watches, w)
	}
}

// Backup keeps what a server has now. The function that it returns restores it, as of then: objects and
// versions are the earlier ones, and all watches end.
func Backup(s *Server) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version, objects := s.version, maps.Clone(s.objects)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.version, s.objects, s.gone = version, maps.Clone(objects), nil

		// A watch that began between these two would show neither what was there nor what is.
		endWatches(s)
	}
}

// ServeHTTP serves the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.groups.isFor(r) {
		s.groups.serve(w, r)
		return
	}

	q, err := parse(r)
	if err != nil {
		refuse(w, err)
		return
	}

	body, readErr := io.ReadAll(r.Body)
	if readErr != nil {
		refuse(w, apierrors.NewBadRequest(readErr.Error()))
		return
	}

	s.mu.Lock()
	s.calls = append(s.calls, strings.TrimSpace(q.call()+" "+q.at.name()))
	failed, answer := s.failing(q.call()), s.answers[q.call()]
	s.mu.Unlock()
	switch {
	case failed != nil:
		refuse(w, failed)
	case answer != nil:
		s.answer(w, body, answer)
	case q.verb == "watch":
		s.serveWatch(w, r, q)
	default:
		s.mu.Lock()
		out, err := s.do(q, body)
		s.mu.Unlock()
		if err != nil {
			refuse(w, err)
			return
		}

		write(w, http.StatusOK, out)
	}
}

// failing returns the error of a call that is to fail. The caller holds the lock.
func (s *Server) failing(call string) *apierrors.StatusError {
	f := s.fail[call]
	if f == nil {
		return nil
	}
	if f.left--; f.left == 0 {
		delete(s.fail, call)
	}
	return f.err
}

func (s *Server) answer(w http.ResponseWriter, body []byte, answer Answer) {
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		refuse(w, apierrors.NewBadRequest(err.Error()))
		return
	}

	out := answer(object)
	kinds, _, err := scheme.Scheme.ObjectKinds(out)
	if err != nil {
		refuse(w, apierrors.NewInternalError(err))
		return
	}

	out.GetObjectKind().SetGroupVersionKind(kinds[0])
	write(w, http.StatusCreated, out)
}

// query is a request of the API.
type query struct {
	verb        string // get, list, watch, create, update, patch, delete
	version     schema.GroupVersion
	at          place
	subresource string
	patch       string // the content type of a patch
	options     metav1.ListOptions
	fields      string
	initial     bool // a watch begins with what there is
	metadata    bool // only metadata is wanted
}

func (q query) call() string {
	if q.subresource != "" {
		return q.verb + " " + q.at.Resource + "/" + q.subresource
	}
	return q.verb + " " + q.at.Resource
}

// kind is the Go type that the resource's objects have.
func (q query) kind() (schema.GroupVersionKind, error) {
	for kind := range scheme.Scheme.KnownTypes(q.version) {
		gvk := q.version.WithKind(kind)
		if plural, _ := meta.UnsafeGuessKindToResource(gvk); plural.Resource == q.at.Resource {
			return gvk, nil
		}
	}
	return schema.GroupVersionKind{}, apierrors.NewBadRequest("no kind of resource " + q.at.Resource)
}

// parse reads the path and the parameters of a request.
func parse(r *http.Request) (query, *apierrors.StatusError) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	q := query{}
	switch {
	case len(parts) > 2 && parts[0] == "api":
		q.version, parts = schema.GroupVersion{Version: parts[1]}, parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		q.version, parts = schema.GroupVersion{Group: parts[1], Version: parts[2]}, parts[3:]
	default:
		return q, apierrors.NewGenericServerResponse(http.StatusNotFound, "get", schema.GroupResource{},
			r.URL.Path, "no such path", 0, true)
	}

	if len(parts) > 2 && parts[0] == "namespaces" {
		q.at.Namespace, parts = parts[1], parts[2:]
	}

	q.at.Resource = parts[0]
	if len(parts) > 1 {
		q.at.Name = parts[1]
	}
	if len(parts) > 2 {
		q.subresource = strings.Join(parts[2:], "/")
	}

	values := r.URL.Query()
	q.fields = values.Get("fieldSelector")
	q.options.LabelSelector = values.Get("labelSelector")
	q.options.ResourceVersion = values.Get("resourceVersion")
	q.initial = values.Get("sendInitialEvents") == "true"
	q.patch = r.Header.Get("Content-Type")
	q.metadata = strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
	q.verb = verb(r.Method, q.at.Name != "", values.Get("watch") != "")
	return q, nil
}

func verb(method string, named, watch bool) string {
	switch {
	case method == http.MethodPost:
		return "create"
	case method == http.MethodPut:
		return "update"
	case method != http.MethodGet:
		return strings.ToLower(method)
	case watch:
		return "watch"
	case named:
		return "get"
	}

	return "list"
}

func refuse(w http.ResponseWriter, err error) {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		status = apierrors.NewInternalError(err)
	}
	out := status.Status()
	out.Kind, out.APIVersion = "Status", "v1"
	write(w, int(out.Code), out)
}

func write(w http.ResponseWriter, code int, out any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)

	// the client has gone away: its test sees that
	_ = json.NewEncoder(w).Encode(out)
}
