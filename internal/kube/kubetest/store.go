package kubetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
)

// place is where an object is.
type place struct{ Resource, Namespace, Name string }

func (p place) name() string { return strings.Trim(p.Namespace+"/"+p.Name, "/") }

// document is a stored object. It is replaced, never changed.
type document = *unstructured.Unstructured

// tombstone is what was deleted, at the version of the deletion.
type tombstone struct {
	at  place
	doc document
}

// Put stores an object as somebody else of the cluster would: it is created, or replaced with its UID kept.
func (s *Server) Put(object metav1.Object) {
	s.t.Helper()
	doc, at, err := toDocument(object)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(at, doc)
}

// Remove deletes an object as somebody else of the cluster would.
func (s *Server) Remove(resource, namespace, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(place{resource, namespace, name})
}

// Get returns a stored object, nil if there is none.
func Get[T any](s *Server, resource, namespace, name string) *T {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()

	doc := s.objects[place{resource, namespace, name}]
	if doc == nil {
		return nil
	}

	out := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(doc.Object, out); err != nil {
		s.t.Fatal(err)
	}

	return out
}

// All returns the stored objects of a resource, in the order of their names.
func All[T any](s *Server, resource string) []*T {
	s.t.Helper()
	s.mu.Lock()
	var places []place
	for at := range s.objects {
		if at.Resource == resource {
			places = append(places, at)
		}
	}

	s.mu.Unlock()

	slices.SortFunc(places, func(a, b place) int { return strings.Compare(a.name(), b.name()) })
	var out []*T
	for _, at := range places {
		if object := Get[T](s, at.Resource, at.Namespace, at.Name); object != nil {
			out = append(out, object)
		}
	}

	return out
}

func toDocument(object any) (document, place, error) {
	kinds, _, err := scheme.Scheme.ObjectKinds(object.(runtime.Object))
	if err != nil {
		return nil, place{}, err
	}

	data, err := json.Marshal(object)
	if err != nil {
		return nil, place{}, err
	}

	doc := &unstructured.Unstructured{}
	if err := json.Unmarshal(data, &doc.Object); err != nil {
		return nil, place{}, err
	}

	doc.SetGroupVersionKind(kinds[0])
	return doc, place{plural(kinds[0]), doc.GetNamespace(), doc.GetName()}, nil
}

func plural(kind schema.GroupVersionKind) string {
	name := strings.ToLower(kind.Kind)
	switch {
	case strings.HasSuffix(name, "s"):
		return name + "es"
	case strings.HasSuffix(name, "y"):
		return strings.TrimSuffix(name, "y") + "ies"
	}
	return name + "s"
}

// store keeps a document and sends it to the watches. One that is being deleted is gone when the last of its
// finalizers is. The caller holds the lock.
func (s *Server) store(at place, doc document) {
	s.version++
	old := s.objects[at]
	if old != nil && len(old.GetFinalizers()) > 0 && len(doc.GetFinalizers()) == 0 &&
		doc.GetDeletionTimestamp() != nil {
		s.drop(at)
		return
	}

	event := "ADDED"
	if old != nil {
		event = "MODIFIED"
		doc.SetUID(old.GetUID())
		doc.SetCreationTimestamp(old.GetCreationTimestamp())
	}

	if doc.GetUID() == "" {
		doc.SetUID(types.UID(fmt.Sprintf("uid-%d", s.version)))
	}

	doc.SetResourceVersion(strconv.FormatInt(s.version, 10))
	s.objects[at] = doc
	s.publish(at, event, old, doc)
}

// remove deletes a document: one with finalizers is marked as being deleted. The caller holds the lock.
func (s *Server) remove(at place) {
	old := s.objects[at]
	if old == nil {
		return
	}

	if len(old.GetFinalizers()) == 0 {
		s.drop(at)
		return
	}

	if old.GetDeletionTimestamp() == nil {
		doc := old.DeepCopy()
		doc.SetDeletionTimestamp(new(metav1.Now()))
		s.store(at, doc)
	}
}

// drop removes a document and sends it to the watches. The caller holds the lock.
func (s *Server) drop(at place) {
	old := s.objects[at]
	s.version++
	gone := old.DeepCopy()
	gone.SetResourceVersion(strconv.FormatInt(s.version, 10))
	delete(s.objects, at)
	s.gone = append(s.gone, tombstone{at, gone})
	s.publish(at, "DELETED", old, gone)
}

// do answers all requests but watches. The caller holds the lock.
func (s *Server) do(q query, body []byte) (any, error) {
	resource := schema.GroupResource{Group: q.version.Group, Resource: q.at.Resource}
	stored := s.objects[q.at]
	if q.verb != "list" && q.verb != "create" && !strings.Contains(q.patch, "apply") && stored == nil {
		return nil, apierrors.NewNotFound(resource, q.at.Name)
	}

	switch q.verb {
	case "list":
		return s.list(q)
	case "get":
		return stored, nil
	case "create":
		return s.create(q, resource, body)
	case "update":
		return s.update(q, resource, stored, body)
	case "patch":
		return s.patch(q, resource, stored, body)
	case "delete":
		return s.delete(q, resource, stored, body)
	}

	return nil, apierrors.NewMethodNotSupported(resource, q.verb)
}

func (s *Server) list(q query) (any, error) {
	kind, err := q.kind()
	if err != nil {
		return nil, err
	}

	items := []any{}
	for _, doc := range s.selected(q) {
		items = append(items, doc.Object)
	}

	return map[string]any{
		"apiVersion": q.version.String(),
		"kind":       kind.Kind + "List",
		"metadata":   map[string]any{"resourceVersion": strconv.FormatInt(s.version, 10)},
		"items":      items,
	}, nil
}

// selected are the documents that a list or a watch is about, in the order of their names.
func (s *Server) selected(q query) []document {
	var out []document
	for _, at := range slices.SortedFunc(maps.Keys(s.objects), func(a, b place) int {
		return strings.Compare(a.name(), b.name())
	}) {
		if q.selects(at, s.objects[at]) {
			out = append(out, s.objects[at])
		}
	}
	return out
}

// selects reports whether a document is among those that a list or a watch is about.
func (q query) selects(at place, doc document) bool {
	if at.Resource != q.at.Resource || q.at.Namespace != "" && at.Namespace != q.at.Namespace {
		return false
	}

	terms, err := fields.ParseSelector(q.fields)
	if err != nil {
		return false
	}
	for _, term := range terms.Requirements() {
		have, _, _ := unstructured.NestedString(doc.Object, strings.Split(term.Field, ".")...)
		if (have == term.Value) != (term.Operator == selection.Equals) {
			return false
		}
	}

	selector, err := labels.Parse(q.options.LabelSelector)
	return err == nil && selector.Matches(labels.Set(doc.GetLabels()))
}

func decode(body []byte) (document, place, error) {
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		return nil, place{}, apierrors.NewBadRequest(err.Error())
	}
	return toDocument(object)
}

func (s *Server) create(q query, resource schema.GroupResource, body []byte) (any, error) {
	doc, at, err := decode(body)
	if err != nil {
		return nil, err
	}

	if at.Name == "" && doc.GetGenerateName() != "" {
		at.Name = fmt.Sprintf("%s%d", doc.GetGenerateName(), s.version)
		doc.SetName(at.Name)
	}

	at.Namespace = q.at.Namespace
	if s.objects[at] != nil {
		return nil, apierrors.NewAlreadyExists(resource, at.Name)
	}

	s.store(at, doc)
	return doc, nil
}

func (s *Server) update(q query, resource schema.GroupResource, stored document, body []byte) (any, error) {
	doc, _, err := decode(body)
	if err != nil {
		return nil, err
	}
	if err := agrees(resource, stored, doc); err != nil {
		return nil, err
	}
	s.store(q.at, doc)
	return doc, nil
}

// agrees refuses what was decided about another version, or another object of that name.
func agrees(resource schema.GroupResource, stored, doc document) error {
	if v := doc.GetResourceVersion(); v != "" && v != stored.GetResourceVersion() {
		return apierrors.NewConflict(resource, doc.GetName(), fmt.Errorf("the version is not %s", v))
	}
	if uid := doc.GetUID(); uid != "" && uid != stored.GetUID() {
		return apierrors.NewConflict(resource, doc.GetName(), fmt.Errorf("the UID is not %s", uid))
	}
	return nil
}

func (s *Server) delete(q query, resource schema.GroupResource, stored document, body []byte) (any, error) {
	if len(body) > 0 {
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, &metav1.DeleteOptions{})
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}

		options, ok := object.(*metav1.DeleteOptions)
		if ok && options.Preconditions != nil && options.Preconditions.UID != nil &&
			*options.Preconditions.UID != stored.GetUID() {
			return nil, apierrors.NewConflict(resource, q.at.Name, fmt.Errorf("the UID is another one"))
		}
	}

	s.remove(q.at)
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusSuccess,
	}, nil
}
