package cluster

import (
	"log/slog"
	"net/netip"
	"sync"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/trivet-node/trivet/internal/kube"
)

// services watches the ServiceCIDRs. Kubernetes has them since 1.33; an older cluster, or a role without the
// right to read them, shows none.
type services struct {
	watch *kube.Watch[networkingv1.ServiceCIDR]
	log   *slog.Logger
	warn  sync.Once
}

func serviceCIDRs(c *kube.Client) kube.Objects[networkingv1.ServiceCIDR] {
	return kube.Of[networkingv1.ServiceCIDR, networkingv1.ServiceCIDRList](
		c, networkingv1.SchemeGroupVersion, "servicecidrs")
}

func newServices(
	source kube.Objects[networkingv1.ServiceCIDR], changed func(), log *slog.Logger,
) *services {
	s := &services{log: log}
	s.watch = kube.NewWatch(source, kube.WatchConfig[networkingv1.ServiceCIDR]{
		Changed: func(_, _ *networkingv1.ServiceCIDR) { changed() },
		Failed:  s.failed,
	})
	return s
}

// failed says once that the networks of Services are not known; the watch keeps trying.
func (s *services) failed(err error) {
	if s.watch.HasListed() {
		s.log.Warn("the watch of ServiceCIDRs failed and is resumed", "err", err)
		return
	}
	s.warn.Do(func() {
		const message = "networks of Services are not known: a Node may claim their addresses for its pods"
		s.log.Warn(message, "err", err)
	})
}

// networks returns the networks of Services that are known.
func (s *services) networks() (all []netip.Prefix) {
	for _, c := range s.watch.All() {
		for _, text := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				all = append(all, p.Masked())
			}
		}
	}
	return all
}
