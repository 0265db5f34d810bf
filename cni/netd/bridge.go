package netd

import (
	"context"
	"errors"
	"time"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostport"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sourceguard"
	"github.com/trivet-node/trivet/internal/retry"
)

// What the plugin makes on the host for all pods of the network, netd keeps: the plugin itself looks only
// when a pod is added.

// parseConfig reads a configuration list as the plugin will.
func parseConfig(list []byte) (*conf.Network, error) {
	stdin, err := pluginConfig(list)
	if err != nil {
		return nil, err
	}
	return conf.ReadNetwork(stdin, conf.Options{HostPorts: true})
}

// moveBridge gives the bridge, if there is one, the gateways of the node's pod CIDRs.
func (d *Daemon) moveBridge(n *conf.Network) error {
	var gateways []bridge.Address
	for _, set := range n.IPAM.Sets {
		gateways = append(gateways, bridge.Address{Prefix: set[0].Subnet, Gateway: set[0].Gateway})
	}

	moved, err := bridge.Move(d.kernel, n.Bridge, gateways)
	if len(moved) > 0 {
		d.log.Info("the bridge has got other gateway addresses",
			"bridge", n.Bridge.Name, "addresses", texts(moved))
	}
	return err
}

// repairRules writes the network's nftables rules and host ports again, if somebody has removed some. Without
// a bridge there are no pods that need them. Writing is an event too, which leads to a pass, so after a
// failure it waits.
func (d *Daemon) repairRules(n *conf.Network, r *Report) error {
	if _, err := d.kernel.LinkByName(n.Bridge.Name); err != nil {
		return nil
	}
	if time.Since(d.rules.failedAt) < firstRetry {
		return d.rules.err
	}

	// Reservations of an earlier boot are left to the plugin. Rules do not depend on the pool.
	location := n.IPAM.Pool
	location.BootScoped = false
	pool, poolErr := location.Open()

	isRunning := func(owner ipam.Owner) bool { return bridge.IsAttached(d.kernel, n.Bridge.Network, owner) }
	rules, ports, err := hostport.Network{NAT: n.NAT, Pool: pool}.Restore(isRunning)
	d.logRestored(n.NAT.Network, rules, ports)
	r.RulesRestored = rules && d.rules.seen
	r.PortsRestored = ports

	err = errors.Join(poolErr, err)
	d.rules.seen = d.rules.seen || err == nil
	if err != nil {
		d.rules.failedAt = time.Now()
		d.rules.err = err
	}

	return err
}

// logRestored logs what had to be restored. The first rules are not worth a warning: the ADD of the first pod
// makes the bridge, and writes them if this pass has not.
func (d *Daemon) logRestored(network string, rules, ports bool) {
	switch {
	case rules && d.rules.seen:
		d.log.Warn("nftables rules of the network were missing and are written again", "network", network)
	case rules:
		d.log.Info("nftables rules of the network are written", "network", network)
	}
	if ports {
		d.log.Warn("host ports of the network were missing and are published again", "network", network)
	}
}

// guardsSource reports whether the plugin is to bind pods to their addresses, which not every kernel can do.
func (d *Daemon) guardsSource(r *Report) bool {
	if d.noSourceGuard != nil && !sourceguard.IsLack(d.noSourceGuard) {
		// The last trial failed for want of something that may be there now, as memory.
		d.noSourceGuard = sourceguard.Try()
	}
	if d.noSourceGuard != nil {
		const note = "pods may send from addresses of others (--source-guard): "
		r.Notes = append(r.Notes, note+d.noSourceGuard.Error())
	}
	return d.cfg.SourceGuard && d.noSourceGuard == nil
}

// sweepInterval is how long a veth that DEL has cut off has at least to go with its pod's network namespace.
const sweepInterval = 10 * time.Second

// sweep deletes, until ctx ends, the veths that DEL has cut off (lazyUnlink) and that stayed. It has a
// connection of its own: one is for one goroutine.
func (d *Daemon) sweep(ctx context.Context) error {
	kernel, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()

	var pending map[int]bool
	for range retry.Every(ctx, sweepInterval) {
		if pending, err = bridge.Sweep(kernel, d.cfg.Network, pending); err != nil {
			d.log.Warn("veths of pods that are gone stay", "network", d.cfg.Network, "err", err)
		}
	}

	return nil
}
