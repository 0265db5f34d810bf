// Package nodes says whether the nodes of a cluster are fit to run the pods of specs.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// callLimit bounds a call of the API server.
const callLimit = 8 * time.Second

// Watch knows the nodes that a cluster had when a run began. Specs make Nodes of their own, which do not
// count.
type Watch struct {
	client kubernetes.Interface
	names  []string
}

// New returns a Watch for the nodes that are in the cluster now. It is an error if there is none.
func New(ctx context.Context, kubeconfig string) (*Watch, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}

	config.Timeout = callLimit
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}

	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list the nodes: %w", err)
	}

	w := &Watch{client: client}
	for _, n := range list.Items {
		w.names = append(w.names, n.Name)
	}

	if len(w.names) == 0 {
		return nil, errors.New("the cluster has no nodes")
	}

	return w, nil
}

// Count is how many nodes there are.
func (w *Watch) Count() int { return len(w.names) }

// Fit returns an error that names the first node which is not Ready, is short of a resource, or is gone.
func (w *Watch) Fit(ctx context.Context) error {
	list, err := w.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("the API server does not answer: %w", err)
	}
	return fit(w.names, list.Items)
}

func fit(names []string, list []corev1.Node) error {
	found := map[string]*corev1.Node{}
	for i := range list {
		found[list[i].Name] = &list[i]
	}

	for _, name := range names {
		n := found[name]
		if n == nil {
			return fmt.Errorf("node %s is gone", name)
		}

		ready := false
		for _, c := range n.Status.Conditions {
			holds := c.Status == corev1.ConditionTrue
			switch {
			case c.Type == corev1.NodeReady:
				ready = holds
			case holds:
				return fmt.Errorf("node %s has %s: %s", name, c.Type, c.Message)
			}
		}

		if !ready {
			return fmt.Errorf("node %s is not Ready", name)
		}
	}

	return nil
}
