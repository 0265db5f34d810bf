// Package eviction asks the API server to delete pods as far as their PodDisruptionBudgets allow.
package eviction

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/internal/kube"
)

// Evictions are asked for by a client.
type Evictions struct{ core *rest.RESTClient }

// Of returns the evictions of a client's server.
func Of(c *kube.Client) Evictions {
	// An eviction is a subresource in the core group with a type of another one.
	return Evictions{core: c.Group(
		corev1.SchemeGroupVersion,
		policyv1.SchemeGroupVersion,
		&policyv1.Eviction{},
	)}
}

// Evict has a pod deleted. It reports whether a budget allows that now; one that is gone is a success.
func (e Evictions) Evict(ctx context.Context, pod *corev1.Pod) (allowed bool, err error) {
	eviction := &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))},
	}

	// The client would wait by itself for as long as the server says.
	request := e.core.Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("eviction")
	err = request.MaxRetries(0).Body(eviction).Do(ctx).Error()
	switch {
	case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return true, nil
	case apierrors.IsTooManyRequests(err):
		return false, nil
	}
	return false, fmt.Errorf("evict pod %s/%s: %w", pod.Namespace, pod.Name, err)
}
