// Package policies is what trivet-netd reads of the Kubernetes API for network policies: NetworkPolicies, and
// as soon as there is one, Pods and Namespaces. It keeps of each object what package policy needs.
package policies

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// Source watches a cluster.
type Source struct {
	policies   *kube.Watch[networkingv1.NetworkPolicy]
	pods       *kube.Watch[corev1.Pod]
	namespaces *kube.Watch[corev1.Namespace]
	changed    func()

	// first is closed when there is a policy, or has been.
	first     chan struct{}
	firstOnce sync.Once

	// mu guards the rest.
	mu sync.Mutex
	// failures say why a kind is not listed yet.
	failures map[string]error
	// converted are the policies as they were last, so that each is converted once.
	converted map[types.UID]conversion
}

type conversion struct {
	version string
	policy  *policy.Policy
}

// pauses are those after errors: while there is no list, pods wait.
var pauses = retry.Backoff{First: 200 * time.Millisecond, Max: 10 * time.Second, Jitter: 1}

// New prepares the watches. changed is called when there may be something new; it must not block.
func New(client *kube.Client, changed func()) *Source {
	s := &Source{
		changed:   changed,
		first:     make(chan struct{}),
		failures:  map[string]error{},
		converted: map[types.UID]conversion{},
	}

	policies := kube.Of[networkingv1.NetworkPolicy, networkingv1.NetworkPolicyList](
		client, networkingv1.SchemeGroupVersion, "networkpolicies")
	s.policies = kube.NewWatch(policies, kube.WatchConfig[networkingv1.NetworkPolicy]{
		Slim:    slimPolicy,
		Changed: s.policyChanged,
		Listed:  changed,
		Failed:  s.failed("networkpolicies"),
		Retry:   pauses,
	})

	s.pods = kube.NewWatch(kube.Pods(client), kube.WatchConfig[corev1.Pod]{
		Slim: slimPod,
		Changed: func(before, now *corev1.Pod) {
			if before == nil || now == nil || !samePod(before, now) {
				changed()
			}
		},
		Listed: changed,
		Failed: s.failed("pods"),
		Retry:  pauses,
	})

	namespaces := kube.Of[corev1.Namespace, corev1.NamespaceList](
		client, corev1.SchemeGroupVersion, "namespaces")
	s.namespaces = kube.NewWatch(namespaces, kube.WatchConfig[corev1.Namespace]{
		Slim: slimNamespace,
		Changed: func(before, now *corev1.Namespace) {
			if before == nil || now == nil || !labels.Equals(before.Labels, now.Labels) {
				changed()
			}
		},
		Listed: changed,
		Failed: s.failed("namespaces"),
		Retry:  pauses,
	})

	return s
}

// Run watches until ctx ends. Without any policy, pods and namespaces do not matter.
func (s *Source) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { s.policies.Run(ctx) })

	select {
	case <-s.first:
	case <-ctx.Done():
		return
	}
	running.Go(func() { s.pods.Run(ctx) })
	running.Go(func() { s.namespaces.Run(ctx) })
}

func (s *Source) policyChanged(_, now *networkingv1.NetworkPolicy) {
	if now != nil {
		s.firstOnce.Do(func() { close(s.first) })
	}
	s.changed()
}

// failed remembers why a kind is not listed. Once it is, a watch that fails is resumed, and nothing waits.
func (s *Source) failed(kind string) func(error) {
	return func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failures[kind] = err
		s.changed()
	}
}

// ErrNoListYet is the state of every start until the API server has answered.
var ErrNoListYet = errors.New("waiting for the API server")

// Waiting says what is not listed yet and why; it returns nil when the lists are complete.
func (s *Source) Waiting() error {
	kinds := []struct {
		name   string
		listed bool
	}{
		{"networkpolicies", s.policies.HasListed()},
		{"pods", s.pods.HasListed()},
		{"namespaces", s.namespaces.HasListed()},
	}
	if kinds[0].listed && !s.hasFirst() {
		return nil
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range kinds {
		switch {
		case k.listed:
		case s.failures[k.name] != nil:
			return fmt.Errorf("waiting for the list of %s: %w", k.name, s.failures[k.name])
		default:
			return ErrNoListYet
		}
	}
	return nil
}

func (s *Source) hasFirst() bool {
	select {
	case <-s.first:
		return true
	default:
		return false
	}
}

// Policies returns the policies.
func (s *Source) Policies() (all []*policy.Policy) {
	objects := s.policies.All()
	s.mu.Lock()
	defer s.mu.Unlock()

	known := make(map[types.UID]conversion, len(objects))
	for _, o := range objects {
		c := s.converted[o.UID]
		if c.policy == nil || c.version != o.ResourceVersion {
			c = conversion{version: o.ResourceVersion, policy: Convert(o)}
		}
		known[o.UID] = c
		all = append(all, c.policy)
	}

	s.converted = known
	return all
}

// Namespaces returns the labels of the namespaces.
func (s *Source) Namespaces() map[string]labels.Set {
	all := map[string]labels.Set{}
	for _, n := range s.namespaces.All() {
		all[n.Name] = n.Labels
	}
	return all
}

// Pods returns the pods that have a network of their own, and may have addresses.
func (s *Source) Pods() (all []Pod) {
	for _, p := range s.pods.All() {
		if pod, ok := convertPod(p); ok {
			all = append(all, pod)
		}
	}
	return all
}
