package objects

import (
	"context"
	"log/slog"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
)

type bundle = certificatesv1.ClusterTrustBundle

// trust are the ClusterTrustBundles that pods show: those that they name are followed one by one, and there
// is a list-watch for each signer whose bundles they select.
type trust struct {
	named   *followed[bundle]
	source  kube.Objects[bundle]
	notify  func(pod types.UID)
	signers shared[string, *signed]
}

// signed are the bundles of a signer.
type signed struct {
	*kube.Watch[bundle]

	// failed is closed when the server has refused to show them.
	failed chan struct{}
}

func newTrust(client *kube.Client, notify func(types.UID), log *slog.Logger) *trust {
	source := kube.Of[bundle, certificatesv1.ClusterTrustBundleList](
		client, certificatesv1.SchemeGroupVersion, "clustertrustbundles")
	t := &trust{
		source: source,
		notify: notify,
		named: newFollowed(kind[bundle]{
			resource: "clustertrustbundles",
			source:   source,
			meta:     func(b *bundle) *metav1.ObjectMeta { return &b.ObjectMeta },
			fixed:    func(*bundle) bool { return false },
		}, notify, log),
	}

	t.signers.open = t.watchOf
	t.signers.keep = func(ctx context.Context, _ string, s *signed) { s.Run(ctx) }
	return t
}

func ofSigner(name string) string {
	return fields.OneTermEqualSelector("spec.signerName", name).String()
}

// watchOf makes the watch of a signer's bundles.
func (t *trust) watchOf(signer string) *signed {
	s := &signed{failed: make(chan struct{})}
	failed := sync.OnceFunc(func() { close(s.failed) })
	s.Watch = kube.NewWatch(t.source, kube.WatchConfig[bundle]{
		Field:  ofSigner(signer),
		Slim:   func(b *bundle) { slimMeta(&b.ObjectMeta) },
		Failed: func(error) { failed() },
		Changed: func(_, _ *bundle) {
			// The first list is waited for.
			if !s.HasListed() {
				return
			}
			for _, pod := range t.signers.users(signer) {
				t.notify(pod)
			}
		},
	})
	return s
}

func (t *trust) run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { t.named.run(ctx) })
	running.Go(func() { t.signers.run(ctx) })
	running.Wait()
}

func (t *trust) register(pod types.UID, named names, signers map[string]bool) {
	t.named.register(pod, named)
	t.signers.register(pod, signers)
}

// ofSigner returns the bundles of a signer that the selector selects.
func (t *trust) ofSigner(ctx context.Context, signer string, selector labels.Selector) ([]*bundle, error) {
	s, found := t.signers.find(signer)
	if !found || !s.await(ctx) {
		return t.list(ctx, signer, selector)
	}

	var out []*bundle
	for _, b := range s.All() {
		if selector.Matches(labels.Set(b.Labels)) {
			out = append(out, b)
		}
	}
	return out, nil
}

// await waits for the first list. It reports whether that has come.
func (s *signed) await(ctx context.Context) bool {
	select {
	case <-s.Listed():
	case <-s.failed:
	case <-ctx.Done():
	}
	return s.HasListed()
}

// list asks the API server, which says why it does not answer.
func (t *trust) list(ctx context.Context, signer string, selector labels.Selector) ([]*bundle, error) {
	options := metav1.ListOptions{FieldSelector: ofSigner(signer), LabelSelector: selector.String()}
	var out []*bundle
	err := kube.RetryForbidden(ctx, func() (err error) {
		out, _, err = t.source.List(ctx, "", options)
		return err
	})
	return out, err
}

// ClusterTrustBundle returns a bundle as last seen, as ConfigMap does.
func (c *Cache) ClusterTrustBundle(ctx context.Context, name string) (*bundle, error) {
	return c.trust.named.get(ctx, types.NamespacedName{Name: name})
}

// ClusterTrustBundles returns the bundles of a signer that the selector selects, in no order. They are shared
// and must not be changed.
func (c *Cache) ClusterTrustBundles(
	ctx context.Context, signer string, selector labels.Selector,
) ([]*bundle, error) {
	return c.trust.ofSigner(ctx, signer, selector)
}
