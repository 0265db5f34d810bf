package enforcer

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/filter"
	"github.com/trivet-node/trivet/cni/policy/hold"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/bootid"
	"github.com/trivet-node/trivet/internal/kube"
)

// Compare says what differs between what the policies of the cluster want of this node, whose pods have
// addresses of some subnets, and what is in the kernel. It changes nothing, and waits for the API server as
// long as ctx allows.
func Compare(
	ctx context.Context, client *kube.Client, cfg Config, subnets []netip.Prefix,
) (differences []filter.Difference, err error) {
	e := New(client, cfg, func() {}, slog.New(slog.DiscardHandler))
	pool, err := e.cfg.Pool.Open()
	if err != nil || pool == nil {
		return nil, err
	}

	host, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = host.Close() }()
	boot, err := bootid.Read()
	if err != nil {
		return nil, err
	}

	watching, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.source.Run(watching)
	}()
	defer func() {
		stop()
		<-ended
	}()

	p := pass{
		Enforcer: e,
		host:     host,
		network:  hold.Network{Name: cfg.Network, Pool: pool},
		boot:     boot,
	}
	return p.compare(ctx, subnets)
}

// Leftovers says what an enforcer of a network has left in the kernel, where there is to be none.
func Leftovers(network string) ([]filter.Difference, error) {
	return filter.New(network).Compare(&policy.State{}, filter.Bridge{})
}

func (p pass) compare(ctx context.Context, subnets []netip.Prefix) ([]filter.Difference, error) {
	for waiting := p.source.Waiting(); waiting != nil; waiting = p.source.Waiting() {
		select {
		case <-ctx.Done():
			return nil, waiting
		case <-p.wake:
		}
	}

	v, err := p.look()
	if err != nil {
		return nil, err
	}
	// Without subnets, a daemon that runs leaves the rules for frames as they are.
	var link filter.Bridge
	if !v.state.IsEmpty() && len(subnets) > 0 {
		if link, err = p.bridge(subnets, v.local.records); err != nil {
			return nil, err
		}
	}
	return p.filter.Compare(v.state, link)
}
