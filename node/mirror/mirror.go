// Package mirror writes what the API shows of the node's pods. The status of a static pod goes to its mirror:
// a pod object that only shows it. A mirror is made when its static pod reports a status for the first time,
// made again when somebody deleted it or it shows another pod, and deleted with its static pod.
package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/node/podsource"
)

// Source is what is known of static pods and their mirrors (podsource.Source).
type Source interface {
	MirrorOf(static *v1.Pod) (mirror *v1.Pod, known bool)
	Mirrored(static, mirror *v1.Pod) *v1.Pod
	// Gone is called when the API answers that it does not have a pod any more.
	Gone(pod types.UID)
}

// Writer writes to the API's pods.
type Writer struct {
	Pods   kube.Objects[v1.Pod]
	Source Source
	Node   func() *v1.Node // the owner of the mirrors; nil while it is not registered
}

// errNoNode is returned as long as a mirror cannot be made because its owner does not exist.
var errNoNode = errors.New("the node is not registered yet")

// PatchStatus applies a strategic merge patch to the status of a pod, or of a static pod's mirror, and
// returns the pod with the status that the API shows now.
func (w Writer) PatchStatus(ctx context.Context, pod *v1.Pod, patch []byte) (*v1.Pod, error) {
	if !podsource.Static(pod) {
		return w.patch(ctx, pod, pod.UID, patch)
	}

	mirror, err := w.ensure(ctx, pod)
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	if patch, err = aimed(patch, mirror.UID); err != nil {
		return nil, err
	}

	stored, err := w.patch(ctx, pod, mirror.UID, patch)
	if err != nil {
		return nil, err
	}

	return w.Source.Mirrored(pod, stored), nil
}

// patch patches the status of the object that has the name of a pod, and the UID if that is in the patch.
func (w Writer) patch(ctx context.Context, pod *v1.Pod, uid types.UID, patch []byte) (*v1.Pod, error) {
	out, err := w.Pods.Patch(ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, patch, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		w.Source.Gone(uid)
	}
	return out, err
}

// aimed makes a patch one of the object with the UID and no other.
func aimed(patch []byte, uid types.UID) ([]byte, error) {
	var change map[string]any
	if err := json.Unmarshal(patch, &change); err != nil {
		return nil, err
	}
	change["metadata"] = map[string]any{"uid": uid}
	return json.Marshal(change)
}

// ensure returns the mirror of a static pod. One that shows another pod, or that somebody is deleting, is
// replaced.
func (w Writer) ensure(ctx context.Context, pod *v1.Pod) (*v1.Pod, error) {
	mirror, _ := w.Source.MirrorOf(pod)
	if mirror == nil {
		made, err := w.create(ctx, pod)
		if !apierrors.IsAlreadyExists(err) {
			return made, err
		}
		if mirror, err = w.Pods.Get(ctx, pod.Namespace, pod.Name); err != nil {
			return nil, err
		}
	}

	if podsource.IsMirrorOf(mirror, pod) {
		return mirror, nil
	}

	if !podsource.Mirror(mirror) {
		name := podsource.FullName(pod)
		return nil, fmt.Errorf("the API has another pod of the name %s, which is not a mirror", name)
	}

	if err := w.Delete(ctx, mirror); err != nil {
		return nil, err
	}

	return w.create(ctx, pod)
}

func (w Writer) create(ctx context.Context, pod *v1.Pod) (*v1.Pod, error) {
	node := w.Node()
	if node == nil {
		return nil, errNoNode
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

	return w.Pods.Create(ctx, want)
}

// Delete removes a pod of the API at once, if it still is this one. A pod that has gone, or whose name
// another one has by now, is a success.
func (w Writer) Delete(ctx context.Context, pod *v1.Pod) error {
	err := w.Pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64(0)),
		Preconditions:      &metav1.Preconditions{UID: &pod.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		err = nil
	}
	if err == nil {
		w.Source.Gone(pod.UID)
	}
	return err
}
