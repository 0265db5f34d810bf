package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// nodes watches the Nodes.
type nodes struct {
	source  kube.Objects[corev1.Node]
	watch   *kube.Watch[corev1.Node]
	changed func()
	log     *slog.Logger

	// mu guards failure, which says why the last attempt to list failed.
	mu      sync.Mutex
	failure error
}

// newNodes prepares the watch. changed is called when the first list is complete, after every difference that
// matters here, and when an attempt to list fails.
func newNodes(source kube.Objects[corev1.Node], changed func(), log *slog.Logger) *nodes {
	n := &nodes{source: source, changed: changed, log: log}
	n.watch = kube.NewWatch(source, kube.WatchConfig[corev1.Node]{
		Slim: slim,
		Changed: func(before, now *corev1.Node) {
			if before == nil || now == nil || !sameRouting(before, now) {
				changed()
			}
		},
		Listed: changed,
		Failed: n.failed,
	})

	return n
}

// firstContact are the pauses between attempts to reach an API server that does not answer yet. A list-watch
// would pause for up to 30 s. The jitter is for clusters whose nodes all start at once.
var firstContact = retry.Backoff{First: 200 * time.Millisecond, Max: 2 * time.Second, Jitter: 1}

// run lists and watches until ctx ends.
func (n *nodes) run(ctx context.Context) {
	err := retry.Until(ctx, firstContact, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()

		_, _, err := n.source.List(ctx, "", metav1.ListOptions{Limit: 1})
		if err != nil {
			n.failed(err)
		}

		return err
	})
	if err == nil {
		n.watch.Run(ctx)
	}
}

// failed remembers why there is no list yet. Once there is one, a watch that fails is resumed, and
// nothing waits for it.
func (n *nodes) failed(err error) {
	if n.watch.HasListed() {
		n.log.Warn("the watch of Nodes failed and is resumed", "err", err)
		return
	}
	n.mu.Lock()
	n.failure = err
	n.mu.Unlock()
	n.changed()
}

// ErrNoListYet is the state of every start until the API server has answered.
var ErrNoListYet = errors.New("waiting for the API server")

// waiting says why there is no list yet; it returns nil when there is one.
func (n *nodes) waiting() error {
	if n.watch.HasListed() {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failure != nil {
		return fmt.Errorf("waiting for the API server: %w", n.failure)
	}
	return ErrNoListYet
}

// slim keeps of a Node what routing needs. Its images and conditions change every few seconds, and would be
// half of the daemon's memory.
func slim(n *corev1.Node) {
	kept := corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:              n.Name,
			UID:               n.UID,
			ResourceVersion:   n.ResourceVersion,
			CreationTimestamp: n.CreationTimestamp,
		},
	}

	kept.Spec.PodCIDRs = n.Spec.PodCIDRs
	if len(kept.Spec.PodCIDRs) == 0 && n.Spec.PodCIDR != "" {
		kept.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
	}

	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			kept.Status.Addresses = append(kept.Status.Addresses, a)
		}
	}

	*n = kept
}

// sameRouting reports whether two versions of a Node lead to the same routes.
func sameRouting(a, b *corev1.Node) bool {
	return slices.Equal(a.Spec.PodCIDRs, b.Spec.PodCIDRs) &&
		slices.Equal(a.Status.Addresses, b.Status.Addresses)
}

// list returns the Nodes by name. What cannot be parsed is left out and named in notes.
func (n *nodes) list() (all []podcidr.Node, notes []string) {
	for _, node := range n.watch.All() {
		parsed, wrong := parseNode(node)
		all = append(all, parsed)
		notes = append(notes, wrong...)
	}
	slices.SortFunc(all, func(a, b podcidr.Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(notes)
	return all, notes
}

func parseNode(node *corev1.Node) (parsed podcidr.Node, notes []string) {
	parsed = podcidr.Node{
		Name:    node.Name,
		UID:     string(node.UID),
		Created: node.CreationTimestamp.Time,
	}

	note := func(format string, values ...any) {
		notes = append(notes, fmt.Sprintf("node %s: ", node.Name)+fmt.Sprintf(format, values...))
	}

	// A Node may hold anything: what is wrong in it must not cost the rest of it, or other Nodes.
	for _, text := range node.Spec.PodCIDRs {
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			note("pod CIDR %q: %v", text, err)
		case p.Addr().Is4In6():
			note("pod CIDR %q: an IPv4 network in IPv6 form", text)
		default:
			parsed.PodCIDRs = append(parsed.PodCIDRs, p.Masked())
		}
	}

	for _, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}

		ip, err := netip.ParseAddr(a.Address)
		if err != nil {
			note("InternalIP %q: %v", a.Address, err)
			continue
		}

		parsed.Addresses = append(parsed.Addresses, ip.WithZone("").Unmap())
	}

	return parsed, notes
}
