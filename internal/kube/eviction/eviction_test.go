package eviction

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

func TestEvictionIsOfThePodThatWasSeen(t *testing.T) {
	s := kubetest.Start(t)
	var asked *policyv1.Eviction
	s.AnswerOn("create pods/eviction", func(request runtime.Object) runtime.Object {
		asked = request.(*policyv1.Eviction)
		return &metav1.Status{Status: metav1.StatusSuccess}
	})

	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "web", UID: "u1"}}
	allowed, err := Of(s.Client()).Evict(t.Context(), pod)
	if err != nil || !allowed || *asked.DeleteOptions.Preconditions.UID != "u1" {
		t.Errorf("allowed %t, %v, asked %+v", allowed, err, asked)
	}
}

func TestAnswersToAnEviction(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	for name, c := range map[string]struct {
		answer  *apierrors.StatusError
		allowed bool
		failed  bool
	}{
		"budget":  {answer: apierrors.NewTooManyRequests("budget", 10)},
		"gone":    {answer: apierrors.NewNotFound(pods, "web"), allowed: true},
		"another": {answer: apierrors.NewConflict(pods, "web", errors.New("UID")), allowed: true},
		"refused": {answer: apierrors.NewForbidden(pods, "web", errors.New("no")), failed: true},
	} {
		s := kubetest.Start(t)
		s.FailOn("create pods/eviction", -1, c.answer)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "web"}}
		allowed, err := Of(s.Client()).Evict(t.Context(), pod)
		if allowed != c.allowed || (err != nil) != c.failed {
			t.Errorf("%s: allowed %t, %v", name, allowed, err)
		}
	}
}
