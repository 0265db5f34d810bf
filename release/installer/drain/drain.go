// Package drain takes a node out of use as kubectl drain does: it is cordoned, and its pods are evicted as
// far as their budgets allow. Whether the node was cordoned before is kept on the Node itself, in the same
// write.
package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/eviction"
)

// Cordoned is the annotation of a node that an installer has taken out of use.
const Cordoned = "installer.trivet.dev/cordoned"

// Change is labels and annotations of a node that are written together with whether it is cordoned; nil takes
// one away.
type Change struct{ Labels, Annotations map[string]any }

// Drain works on one node.
type Drain struct {
	Nodes     kube.Objects[corev1.Node]
	Pods      kube.Objects[corev1.Pod]
	Evictions eviction.Evictions
	Node      string

	// By names the installer.
	By string
}

// mark is the annotation.
type mark struct {
	By    string    `json:"by"`
	Since time.Time `json:"since"`

	// Before says that somebody else had cordoned the node.
	Before bool `json:"before,omitempty"`
}

// markOf is the annotation of a node, the zero value if there is none.
func markOf(node *corev1.Node) (m mark) {
	if json.Unmarshal([]byte(node.Annotations[Cordoned]), &m) != nil {
		return mark{}
	}
	return m
}

// Owner is the installer that has taken a node out of use; empty: none has.
func Owner(node *corev1.Node) string { return markOf(node).By }

// Since is when an installer took the node out of use; zero: it did not.
func Since(node *corev1.Node, by string) time.Time {
	if m := markOf(node); m.By == by {
		return m.Since
	}
	return time.Time{}
}

// Cordon takes the node out of use, if it is not, with a change.
func (d Drain) Cordon(ctx context.Context, node *corev1.Node, change Change) error {
	switch m := markOf(node); m.By {
	case d.By:
		return nil
	case "":
	default:
		return fmt.Errorf("node %s was cordoned by the installer of %s", d.Node, m.By)
	}

	m := mark{By: d.By, Since: time.Now().UTC(), Before: node.Spec.Unschedulable}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	annotations := map[string]any{Cordoned: string(text)}
	maps.Copy(annotations, change.Annotations)
	return d.patch(ctx, node, Change{Labels: change.Labels, Annotations: annotations}, true)
}

// Uncordon takes the node into use again, unless it was cordoned before.
func (d Drain) Uncordon(ctx context.Context, node *corev1.Node, change Change) error {
	annotations := map[string]any{}
	maps.Copy(annotations, change.Annotations)

	cordoned := node.Spec.Unschedulable
	if m := markOf(node); m.By == d.By {
		annotations[Cordoned] = nil
		cordoned = cordoned && m.Before
	}
	return d.patch(ctx, node, Change{Labels: change.Labels, Annotations: annotations}, cordoned)
}

// patch writes a change, and whether the node is cordoned, if the node is as it was seen.
func (d Drain) patch(ctx context.Context, node *corev1.Node, change Change, cordoned bool) error {
	var unschedulable any
	if cordoned {
		unschedulable = true
	}

	// null would take all of them away.
	metadata := map[string]any{"resourceVersion": node.ResourceVersion}
	if len(change.Labels) > 0 {
		metadata["labels"] = change.Labels
	}
	if len(change.Annotations) > 0 {
		metadata["annotations"] = change.Annotations
	}

	patch, err := json.Marshal(map[string]any{
		"metadata": metadata,
		"spec":     map[string]any{"unschedulable": unschedulable},
	})
	if err != nil {
		return err
	}

	if _, err := d.Nodes.Patch(ctx, "", d.Node, types.MergePatchType, patch); err != nil {
		return fmt.Errorf("node %s: %w", d.Node, err)
	}
	return nil
}

// List is the pods of the node.
func (d Drain) List(ctx context.Context) ([]*corev1.Pod, error) {
	all, _, err := d.Pods.List(ctx, "", metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", d.Node).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("pods of node %s: %w", d.Node, err)
	}
	return all, nil
}

// Check finds a pod that no controller would make again, and that would not run again by itself.
func Check(pods []*corev1.Pod) error {
	for _, pod := range pods {
		if fate(pod) == lost {
			return fmt.Errorf("pod %s/%s has no controller, and does not restart: delete it first",
				pod.Namespace, pod.Name)
		}
	}
	return nil
}

// Evict asks for the eviction of the pods that have to go, and returns those that are still there, also when
// some could not be asked for. It is called until there are none.
func (d Drain) Evict(ctx context.Context, pods []*corev1.Pod) (left []string, err error) {
	for _, pod := range pods {
		what := pod.Namespace + "/" + pod.Name
		switch fate(pod) {
		case stays:
			continue
		case lost:
			// It has come after the check.
			left = append(left, what+" (it has no controller, and does not restart: delete it)")
			continue
		}

		if pod.DeletionTimestamp == nil {
			allowed, failure := d.Evictions.Evict(ctx, pod)
			if ctx.Err() != nil {
				return left, context.Cause(ctx)
			}
			switch {
			case failure != nil:
				err = errors.Join(err, failure)
			case !allowed:
				what += " (its PodDisruptionBudget does not allow it yet)"
			}
		}
		left = append(left, what)
	}
	return left, err
}

// What becomes of a pod.
type destiny int

const (
	// stays where it is: the node's agent makes its containers again.
	stays destiny = iota

	// goes: its controller makes another one elsewhere.
	goes

	// lost would be a pod whose work is done twice, or not again.
	lost
)

func fate(pod *corev1.Pod) destiny {
	finished := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	controller := metav1.GetControllerOf(pod)
	switch {
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "", finished:
		return stays
	case controller != nil && controller.Kind == "DaemonSet":
		return stays
	case controller != nil:
		return goes
	case pod.Spec.RestartPolicy == corev1.RestartPolicyNever && pod.DeletionTimestamp == nil:
		return lost
	}
	return stays
}

// Images are those of pods, each once.
func Images(pods []*corev1.Pod) (images []string) {
	seen := map[string]bool{}
	add := func(image string) {
		if image != "" && !seen[image] {
			seen[image] = true
			images = append(images, image)
		}
	}

	for _, pod := range pods {
		for _, c := range pod.Spec.InitContainers {
			add(c.Image)
		}
		for _, c := range pod.Spec.Containers {
			add(c.Image)
		}
	}
	return images
}
