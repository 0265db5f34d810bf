package netd

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/cni/netd/overlay"
	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/netd/routing"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// reconcile does the work of one pass and reports it in r. The parts do not hinder each other: routes are
// repaired while the plugin is not there yet, and the other way round.
func (d *Daemon) reconcile(ctx context.Context, r *Report) {
	all, notes := d.cluster.Nodes()
	r.Nodes = len(all)
	r.Notes = notes

	// Without this node, the list is not one to withdraw routes by: the Node may be about to come back.
	own, ok := find(all, d.cfg.NodeName)
	if !ok {
		r.fail(fmt.Errorf("node %s is not in the cluster yet", d.cfg.NodeName))
		return
	}

	admitted := d.admit(own, all, r)
	d.reportPolicies(own.PodCIDRs, r)

	r.fail(d.forward(own.PodCIDRs))
	local, err := addresses(d.kernel)
	if err != nil {
		r.fail(err)
		return
	}

	mtu, err := d.route(own, admitted, local, r)
	if err != nil {
		r.fail(err)
		return
	}

	if len(own.PodCIDRs) == 0 {
		const hint = "the controller-manager allocates it: --allocate-node-cidrs, --cluster-cidr"
		r.fail(fmt.Errorf("node %s has no pod CIDR yet (%s)", own.Name, hint))
		return
	}

	if err := d.configure(ctx, own, admitted, mtu, r); err != nil {
		r.fail(fmt.Errorf("network configuration %s is not written: %w", d.cfg.confPath(), err))
	}

	if name := sortsBefore(d.cfg); name != "" {
		const format = "%s sorts before %s: runtimes use that network, not this one"
		path := filepath.Join(d.cfg.ConfDir, name)
		r.Notes = append(r.Notes, fmt.Sprintf(format, path, d.cfg.ConfName))
	}
}

func find(all []podcidr.Node, name string) (podcidr.Node, bool) {
	i := slices.IndexFunc(all, func(n podcidr.Node) bool { return n.Name == name })
	if i < 0 {
		return podcidr.Node{}, false
	}
	return all[i], true
}

// admit returns the Nodes with the pod CIDRs that are admitted, and reports the others.
func (d *Daemon) admit(own podcidr.Node, all []podcidr.Node, r *Report) []podcidr.Node {
	rules := podcidr.Rules{
		Cluster:  d.cfg.ClusterCIDRs,
		Services: slices.Concat(d.cfg.ServiceCIDRs, d.cluster.Services()),
	}
	admitted, refused := rules.Admit(own, all)
	for _, f := range refused {
		r.Notes = append(r.Notes, f.String())
	}
	d.cluster.RecordRefusals(refused)
	return admitted
}

// route makes the ways to other nodes' pods match the Nodes, and returns the MTU that pods may have.
func (d *Daemon) route(
	own podcidr.Node, admitted []podcidr.Node, local []rtnl.InterfaceAddress, r *Report,
) (podMTU int, err error) {
	plan, mtu, err := d.cfg.plan(d.kernel, own, admitted, local)
	if err != nil {
		return 0, err
	}
	r.Notes = append(r.Notes, plan.Notes...)

	// A tunnel that cannot be made costs the routes through it, and no others; one that is there keeps them.
	tunnels, err := d.cfg.overlay().Sync(d.kernel, plan.Tunnels, plan.Allowed)
	r.fail(err)
	r.Tunnels = tunnels.Peers
	r.TunnelsAdded = tunnels.Added
	r.TunnelsDeleted = tunnels.Deleted

	wanted := slices.Concat(plan.Routes, routing.ThroughTunnels(tunnels.Routes))
	added, deleted, err := routing.Sync(d.kernel, wanted)
	r.fail(err)
	r.Routes = len(wanted)
	r.RoutesAdded = added
	r.RoutesDeleted = deleted
	if added+deleted+tunnels.Added+tunnels.Deleted > 0 {
		d.log.Info("routes changed", "added", added, "deleted", deleted, "nodes", len(admitted),
			"through_tunnels", tunnels.Peers)
	}

	return overlay.PodMTU(plan.Tunnels, mtu), nil
}

// plan decides how this node reaches the others. mtu is that of the network between the nodes.
func (c Config) plan(
	kernel *rtnl.Conn, own podcidr.Node, admitted []podcidr.Node, local []rtnl.InterfaceAddress,
) (plan routing.Plan, mtu int, err error) {
	if mtu, err = deviceMTU(kernel, own, local); err != nil {
		return plan, 0, err
	}

	situation := routing.Situation{
		Own:     own,
		Nodes:   admitted,
		Local:   local,
		Overlay: c.Overlay,
		MTU:     mtu,
	}
	if routing.NeedsRouters(situation) {
		defaults, err := kernel.DefaultRoutes()
		if err != nil {
			return plan, 0, err
		}
		for _, r := range defaults {
			situation.Routers = append(situation.Routers, r.Gateway)
		}
	}

	return routing.NewPlan(situation), mtu, nil
}

// addresses returns those of this node, but for its ends of tunnels: they follow what is decided by the
// others.
func addresses(kernel *rtnl.Conn) ([]rtnl.InterfaceAddress, error) {
	tunnels, err := overlay.Interfaces(kernel)
	if err != nil {
		return nil, err
	}
	all, err := kernel.AllAddresses()
	return slices.DeleteFunc(all, func(a rtnl.InterfaceAddress) bool {
		return slices.Contains(tunnels, a.Index)
	}), err
}

// configure makes the network configuration, and what the plugin has made by it, match the node. An error
// means that the configuration is not written.
func (d *Daemon) configure(
	ctx context.Context, own podcidr.Node, admitted []podcidr.Node, mtu int, r *Report,
) error {
	noMasq := podNetworks(d.cfg.ClusterCIDRs, admitted)
	policies, err := d.holdsPods()
	if err != nil {
		return err
	}

	data, err := network{
		name:        d.cfg.Network,
		bridge:      d.cfg.Bridge,
		podCIDRs:    own.PodCIDRs,
		noMasq:      noMasq,
		mtu:         mtu,
		sourceGuard: d.guardsSource(r),
		policies:    policies,
	}.configuration()
	if err != nil {
		return err
	}

	parsed, err := parseConfig(data)
	if err != nil {
		return err
	}

	r.Pool = parsed.IPAM.Pool
	r.Ranges = parsed.IPAM.Sets
	r.fail(d.moveBridge(parsed))
	written, err := publish(ctx, d.cfg, data)
	r.ConfigWritten = written
	if written {
		cidrs := strings.Join(texts(own.PodCIDRs), ",")
		d.log.Info("network configuration written", "file", d.cfg.confPath(), "pod_cidrs", cidrs, "mtu", mtu)
	}

	if err != nil {
		return err
	}

	// By the configuration that the plugin has, too.
	r.fail(d.repairRules(parsed, r))
	return nil
}

// deviceMTU returns the MTU of the interface that has the node's address, since packets to other nodes' pods
// leave by it (the smallest, if there are several); else that of the default route; else 0.
func deviceMTU(kernel *rtnl.Conn, own podcidr.Node, local []rtnl.InterfaceAddress) (int, error) {
	devices := devicesOf(own, local)
	if len(devices) == 0 {
		defaults, err := kernel.DefaultRoutes()
		if err != nil {
			return 0, err
		}

		for _, r := range defaults {
			devices = append(devices, r.Index)
		}
	}

	// Of several ways out, every one has to take the packet.
	smallest := 0
	for _, index := range devices {
		link, err := kernel.LinkByIndex(index)
		if netlink.IsNotExist(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if smallest == 0 || link.MTU < smallest {
			smallest = link.MTU
		}
	}

	return smallest, nil
}
