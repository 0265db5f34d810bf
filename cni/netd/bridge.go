package netd

import (
	"errors"
	"time"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/portrecord"
)

// What the plugin makes on the host for all pods of the network, netd keeps: the plugin itself looks only
// when a pod is added.

// parseConfig reads a configuration list as the plugin will.
func parseConfig(list []byte) (*conf.Network, error) {
	stdin, err := pluginConfig(list)
	if err != nil {
		return nil, err
	}
	return conf.Parse(pluginType, stdin, "")
}

// moveBridge gives the bridge, if there is one, the gateways of the node's pod CIDRs.
func (d *Daemon) moveBridge(n *conf.Network) error {
	var gateways []bridge.Address
	for _, set := range n.IPAM.Sets {
		gateways = append(gateways, bridge.Address{Prefix: set[0].Subnet, Gateway: set[0].Gateway})
	}
	moved, err := bridge.Move(d.kernel, n.BridgeConfig(), gateways)
	if len(moved) > 0 {
		d.log.Info("bridge has got other gateway addresses", "bridge", n.Bridge, "addresses", texts(moved))
	}
	return err
}

// repairRules writes the network's nftables rules again, if somebody has taken some away. Without a bridge
// there are no pods that need them. Writing is an event, too, which leads to a pass: after a failure it
// waits.
func (d *Daemon) repairRules(n *conf.Network) error {
	if _, err := d.kernel.LinkByName(n.Bridge); err != nil {
		return nil
	}
	if time.Since(d.unmended.at) < firstRetry {
		return d.unmended.err
	}

	t, err := hostnat.Open(n.NATConfig())
	if err != nil {
		return err
	}
	defer func() { _ = t.Close() }()

	repaired, err := t.Repair()
	if repaired {
		d.log.Warn("nftables rules of the network were not as they have to be and are written again",
			"network", n.Name)
	}

	if err == nil {
		err = d.restorePorts(n, t)
	}
	if err != nil {
		d.unmended.at, d.unmended.err = time.Now(), err
	}

	return err
}

// restorePorts publishes host ports of running pods that are on record and not in the table.
func (d *Daemon) restorePorts(n *conf.Network, t *hostnat.Table) error {
	pool, err := ipam.OpenIfThere(n.IPAM.DataDir, n.Name, false)
	if err != nil || pool == nil {
		return err
	}

	records, err := portrecord.Of(pool).All()
	if err != nil {
		return err
	}

	var running []portrecord.Record
	var ports []hostnat.Port
	for _, r := range records {
		if d.runs(n, r.Owner) {
			running, ports = append(running, r), append(ports, r.Ports...)
		}
	}

	if len(ports) == 0 || t.HasPorts(ports) == nil {
		return nil
	}

	var errs []error
	for _, r := range running {
		errs = append(errs, pool.Locked(func() error {
			// a DEL was quicker
			if !portrecord.Of(pool).Has(r.Owner) {
				return nil
			}

			return t.AddPorts(r.Owner.Label(), r.Ports)
		}))
	}

	if err := errors.Join(errs...); err != nil {
		return err
	}

	d.log.Warn("host ports of the network were not as they have to be and are published again",
		"network", n.Name)
	return nil
}

// runs reports whether an attachment has its interface. A record of one that ended without DEL stays until
// GC.
func (d *Daemon) runs(n *conf.Network, owner ipam.Owner) bool {
	link, err := d.kernel.LinkByName(bridge.HostName(n.Name, owner))
	return err == nil && link.Group != bridge.DiscardGroup
}
