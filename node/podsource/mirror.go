package podsource

import (
	"context"
	"encoding/json"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// Mirrors shows static pods in the API. A mirror is made when a static pod reports its status first, made again when somebody deleted it, and
// deleted with its static pod.
type Mirrors struct {
	Source *Source
	Core   rest.Interface
	Node   func() *v1.Node // owner of the mirrors
}

// PatchStatus writes the status of a static pod to its mirror and returns the static pod with that status.
func (m Mirrors) PatchStatus(ctx context.Context, pod *v1.Pod, patch []byte) (*v1.Pod, error) {
	mirror, err := m.ensure(ctx, pod)
	if err != nil {
		return nil, err
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
	if err := m.Core.Patch(types.StrategicMergePatchType).Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("status").Body(patch).Do(ctx).Into(out); err != nil {
		return nil, err
	}
	shown := pod.DeepCopy()
	shown.Status = out.Status
	m.Source.setStatic(shown)
	return shown, nil
}

func (m Mirrors) ensure(ctx context.Context, pod *v1.Pod) (*v1.Pod, error) {
	if mirror := m.Source.mirrorOf(pod); mirror != nil {
		if mirror.Annotations[AnnotationMirror] == string(pod.UID) {
			return mirror, nil
		}
		if err := m.Delete(ctx, mirror); err != nil { // of an earlier manifest
			return nil, err
		}
	}
	want := pod.DeepCopy()
	want.UID, want.Status = "", v1.PodStatus{}
	want.Annotations[AnnotationMirror] = string(pod.UID)
	delete(want.Annotations, annotationFile)
	if n := m.Node(); n != nil {
		want.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID, Controller: new(true)}}
	}
	out := &v1.Pod{}
	err := m.Core.Post().Namespace(want.Namespace).Resource("pods").Body(want).Do(ctx).Into(out)
	if apierrors.IsAlreadyExists(err) {
		err = m.Core.Get().Namespace(want.Namespace).Resource("pods").Name(want.Name).Do(ctx).Into(out)
	}
	return out, err
}

// Delete removes a mirror.
func (m Mirrors) Delete(ctx context.Context, mirror *v1.Pod) error {
	options := &metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &mirror.UID}}
	err := m.Core.Delete().Namespace(mirror.Namespace).Resource("pods").Name(mirror.Name).Body(options).Do(ctx).Error()
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// StaticOf is the UID of the static pod that a mirror shows.
func StaticOf(mirror *v1.Pod) types.UID { return types.UID(mirror.Annotations[AnnotationMirror]) }

// HasMirror tells whether the API shows the static pod. Without the API's list nothing is known, and it counts as shown.
func (s *Source) HasMirror(pod *v1.Pod) bool {
	s.mu.Lock()
	listed := s.listed
	s.mu.Unlock()
	return !listed || s.mirrorOf(pod) != nil
}

func (s *Source) mirrorOf(pod *v1.Pod) *v1.Pod {
	all := s.List()
	i := slices.IndexFunc(all, func(p *v1.Pod) bool { return Mirror(p) && p.Namespace == pod.Namespace && p.Name == pod.Name })
	if i < 0 {
		return nil
	}
	return all[i]
}

// setStatic keeps the status of a static pod that is still there.
func (s *Source) setStatic(pod *v1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods[pod.UID] != nil {
		s.pods[pod.UID] = pod
	}
}
