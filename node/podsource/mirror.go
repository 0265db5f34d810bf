package podsource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/node/manifest"
)

// Mirrors shows static pods in the API. A mirror is made when a static pod reports its status first, made
// again when somebody deleted it or it is another pod's, and deleted with its static pod.
type Mirrors struct {
	Source *Source
	Core   rest.Interface
	Node   func() *v1.Node // owner of the mirrors
}

// ErrNoNode is that a mirror cannot be made before its owner is there.
var ErrNoNode = errors.New("the node is not registered yet")

// PatchStatus writes the status of a static pod to its mirror and returns the static pod with that status.
func (m Mirrors) PatchStatus(ctx context.Context, pod *v1.Pod, patch []byte) (*v1.Pod, error) {
	mirror, err := m.ensure(ctx, pod)
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}

	var change map[string]any
	if err := json.Unmarshal(patch, &change); err != nil {
		return nil, err
	}

	change["metadata"] = map[string]any{"uid": mirror.UID}
	if patch, err = json.Marshal(change); err != nil {
		return nil, err
	}

	out := &v1.Pod{}
	err = m.Core.Patch(types.StrategicMergePatchType).Namespace(pod.Namespace).Resource("pods").
		Name(pod.Name).SubResource("status").Body(patch).Do(ctx).Into(out)
	if err != nil {
		return nil, err
	}

	return m.Source.mirrored(pod, out), nil
}

// ensure returns the mirror of a static pod. One that shows another pod, or that somebody is deleting, makes
// room for it.
func (m Mirrors) ensure(ctx context.Context, pod *v1.Pod) (*v1.Pod, error) {
	mirror, _ := m.Source.MirrorOf(pod)
	if mirror == nil {
		made, err := m.create(ctx, pod)
		if !apierrors.IsAlreadyExists(err) {
			return made, err
		}
		if mirror, err = m.read(ctx, pod); err != nil {
			return nil, err
		}
	}

	if shows(mirror, pod) {
		return mirror, nil
	}
	if !Mirror(mirror) {
		return nil, fmt.Errorf("the API has another pod of the name %s, which is no mirror", FullName(pod))
	}
	if err := m.Delete(ctx, mirror); err != nil {
		return nil, err
	}

	return m.create(ctx, pod)
}

func (m Mirrors) create(ctx context.Context, pod *v1.Pod) (*v1.Pod, error) {
	node := m.Node()
	if node == nil {
		return nil, ErrNoNode
	}

	want := pod.DeepCopy()
	want.UID, want.Status = "", v1.PodStatus{}
	want.Annotations[v1.MirrorPodAnnotationKey] = string(pod.UID)
	want.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "v1",
		Kind:       "Node",
		Name:       node.Name,
		UID:        node.UID,
		Controller: new(true),
	}}

	out := &v1.Pod{}
	err := m.Core.Post().Namespace(want.Namespace).Resource("pods").Body(want).Do(ctx).Into(out)
	return out, err
}

func (m Mirrors) read(ctx context.Context, pod *v1.Pod) (*v1.Pod, error) {
	out := &v1.Pod{}
	err := m.Core.Get().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).Do(ctx).Into(out)
	return out, err
}

// Delete removes a mirror, or another pod of the API, at once, if it still is this one.
func (m Mirrors) Delete(ctx context.Context, pod *v1.Pod) error {
	options := &metav1.DeleteOptions{
		GracePeriodSeconds: new(int64(0)),
		Preconditions:      &metav1.Preconditions{UID: &pod.UID},
	}
	request := m.Core.Delete().Namespace(pod.Namespace).Resource("pods").Name(pod.Name)
	err := request.Body(options).Do(ctx).Error()
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// Mirror reports whether the API's pod only shows a static one: it is not run for itself.
func Mirror(pod *v1.Pod) bool {
	_, ok := pod.Annotations[v1.MirrorPodAnnotationKey]
	return ok
}

// StaticOf is the UID of the static pod that a mirror shows.
func StaticOf(mirror *v1.Pod) types.UID {
	return types.UID(mirror.Annotations[v1.MirrorPodAnnotationKey])
}

// shows reports whether a pod of the API is the mirror of the static pod and stays.
func shows(mirror, static *v1.Pod) bool {
	return Mirror(mirror) && StaticOf(mirror) == static.UID && mirror.DeletionTimestamp == nil
}

// Shows reports whether a mirror still has something to show: its static pod is there, or not read yet, and
// nobody deletes it.
func (s *Source) Shows(mirror *v1.Pod) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expected[manifest.SourceFile] || s.expected[manifest.SourceURL] {
		return true
	}
	static := s.static[StaticOf(mirror)]
	return static != nil && FullName(static) == FullName(mirror) && shows(mirror, static)
}

// MirrorOf is the API's pod in the place of a static pod's mirror, also if it shows another one; nil: there
// is none. It is not known before the API's list is.
func (s *Source) MirrorOf(static *v1.Pod) (mirror *v1.Pod, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mirrorOf(static), !s.expected[SourceAPI]
}

// mirrorOf is the mirror of the static pod's name. The caller holds the lock.
func (s *Source) mirrorOf(static *v1.Pod) *v1.Pod {
	for _, pod := range s.pods {
		if Mirror(pod) && FullName(pod) == FullName(static) {
			return pod
		}
	}
	return nil
}

// mirrors are the UIDs of all mirrors. The caller holds the lock.
func (s *Source) mirrors() []types.UID {
	var out []types.UID
	for uid, pod := range s.pods {
		if Mirror(pod) {
			out = append(out, uid)
		}
	}
	return out
}

// mirrored keeps what the API shows of a static pod now, if that is still there, and returns it.
func (s *Source) mirrored(static, mirror *v1.Pod) *v1.Pod {
	shown := static.DeepCopy()
	shown.Status = *mirror.Status.DeepCopy()
	s.mu.Lock()
	defer s.mu.Unlock()

	if have := s.static[static.UID]; have != nil {
		// the manifest may have changed meanwhile
		shown.ObjectMeta, shown.Spec = have.ObjectMeta, have.Spec
		s.static[static.UID] = shown
	}

	if old := s.pods[mirror.UID]; old != nil && newer(mirror, old) {
		s.pods[mirror.UID] = strip(mirror)
	}

	return shown
}
