package drain

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/eviction"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

func TestFatesOfPods(t *testing.T) {
	owned := func(kind string) metav1.ObjectMeta {
		owner := metav1.OwnerReference{Kind: kind, Controller: new(true)}
		return metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{owner}}
	}

	once := corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever}
	succeeded := corev1.PodStatus{Phase: corev1.PodSucceeded}
	failed := corev1.PodStatus{Phase: corev1.PodFailed}
	mirror := metav1.ObjectMeta{Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"}}
	for name, c := range map[string]struct {
		pod  corev1.Pod
		want destiny
	}{
		"of a ReplicaSet":       {corev1.Pod{ObjectMeta: owned("ReplicaSet")}, goes},
		"of a Job":              {corev1.Pod{ObjectMeta: owned("Job"), Spec: once}, goes},
		"of a DaemonSet":        {corev1.Pod{ObjectMeta: owned("DaemonSet")}, stays},
		"static":                {corev1.Pod{ObjectMeta: mirror, Spec: once}, stays},
		"alone, starts again":   {corev1.Pod{}, stays},
		"alone, runs once":      {corev1.Pod{Spec: once}, lost},
		"alone, has run":        {corev1.Pod{Spec: once, Status: succeeded}, stays},
		"of a Job, has run too": {corev1.Pod{ObjectMeta: owned("Job"), Status: failed}, stays},
	} {
		if got := fate(&c.pod); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestWhoHasCordonedANodeUncordonsIt has two installers on a node.
func TestWhoHasCordonedANodeUncordonsIt(t *testing.T) {
	for _, before := range []bool{false, true} {
		s := kubetest.Start(t)
		s.Put(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{
				Name:        "n1",
				Labels:      map[string]string{"kubernetes.io/os": "linux"},
				Annotations: map[string]string{"theirs": "x"},
			},
			Spec: corev1.NodeSpec{Unschedulable: before},
		})
		node := func() *corev1.Node { return kubetest.Get[corev1.Node](s, "nodes", "", "n1") }
		d := Drain{Nodes: kube.Nodes(s.Client()), Node: "n1", By: "cri"}
		other := d
		other.By = "node"

		for range 2 {
			if err := d.Cordon(t.Context(), node(), Change{}); err != nil {
				t.Fatal(err)
			}
		}
		if !node().Spec.Unschedulable || Since(node(), "cri").IsZero() || !Since(node(), "node").IsZero() {
			t.Errorf("spec %+v, annotations %q", node().Spec, node().Annotations)
		}
		if err := other.Cordon(t.Context(), node(), Change{}); err == nil {
			t.Error("the other installer has the node, too")
		}
		if err := other.Uncordon(t.Context(), node(), Change{}); err != nil || !node().Spec.Unschedulable {
			t.Errorf("error %v, spec %+v", err, node().Spec)
		}

		for range 2 {
			if err := d.Uncordon(t.Context(), node(), Change{}); err != nil {
				t.Fatal(err)
			}
		}
		n := node()
		if n.Spec.Unschedulable != before || len(n.Annotations) != 1 || len(n.Labels) != 1 {
			t.Errorf("before %t, spec %+v, metadata %+v", before, n.Spec, n.ObjectMeta)
		}
	}
}

func TestChangeOfANodeThatWasSeenOtherwiseIsRefused(t *testing.T) {
	s := kubetest.Start(t)
	s.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	old := kubetest.Get[corev1.Node](s, "nodes", "", "n1")
	changed := old.DeepCopy()
	changed.Spec.Unschedulable = true
	s.Put(changed)

	d := Drain{Nodes: kube.Nodes(s.Client()), Node: "n1", By: "cri"}
	if err := d.Cordon(t.Context(), old, Change{}); err == nil {
		t.Error("somebody else's cordon is taken for one's own")
	}
}

// TestEvictionThatFailsStopsNoOther is of a webhook that refuses one pod.
func TestEvictionThatFailsStopsNoOther(t *testing.T) {
	s := kubetest.Start(t)
	s.AnswerOn("create pods/eviction", func(runtime.Object) runtime.Object {
		return &metav1.Status{Status: metav1.StatusSuccess}
	})
	s.FailOn("create pods/eviction", 1, apierrors.NewInternalError(errors.New("webhook")))

	var pods []*corev1.Pod
	for _, name := range []string{"a", "b"} {
		owner := metav1.OwnerReference{Kind: "ReplicaSet", Controller: new(true)}
		pods = append(pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace:       "default",
			Name:            name,
			OwnerReferences: []metav1.OwnerReference{owner},
		}})
	}
	left, err := Drain{Evictions: eviction.Of(s.Client())}.Evict(t.Context(), pods)
	if text := fmt.Sprint(err); !strings.Contains(text, "default/a") || strings.Contains(text, "default/b") {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(left, []string{"default/a", "default/b"}) {
		t.Errorf("left %q", left)
	}
	if !slices.Contains(s.Calls(), "create pods/eviction default/b") {
		t.Errorf("calls %q", s.Calls())
	}
}

func TestImagesAreThoseOfAllContainersOnce(t *testing.T) {
	pods := []*corev1.Pod{{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Image: "init"}},
		Containers:     []corev1.Container{{Image: "app"}, {Image: "init"}},
	}}}
	if got := Images(pods); !slices.Equal(got, []string{"init", "app"}) {
		t.Errorf("images %q", got)
	}
}
