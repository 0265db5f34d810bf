package plugin

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/portrecord"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// valid tells which attachments the runtime still knows. Without a list nothing may be collected: an absent
// list is not an empty one.
func valid(n *conf.Network) (func(ipam.Owner) bool, bool) {
	if !n.HasValid {
		return nil, false
	}
	known := make(map[ipam.Owner]bool, 2*len(n.Valid))
	for _, a := range n.Valid {
		known[ipam.Owner{ContainerID: a.ContainerID, IfName: a.IfName}] = true

		// a reservation in host-local's old format, which names no interface
		known[ipam.Owner{ContainerID: a.ContainerID}] = true
	}
	return func(o ipam.Owner) bool { return known[o] }, true
}

// byName is valid for what carries its owner as text.
func byName(n *conf.Network) func(string) bool {
	known := make(map[string]bool, len(n.Valid))
	for _, a := range n.Valid {
		known[ipam.Owner{ContainerID: a.ContainerID, IfName: a.IfName}.Label()] = true
	}
	return func(owner string) bool { return known[owner] }
}

// gcBridge goes on past errors: what can be given back is. Addresses come last, when nothing uses them any
// more.
func gcBridge(n *conf.Network) error {
	if !n.HasValid {
		return nil
	}

	ports := errors.Join(gcRecords(n), gcNAT(n))
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	links := bridge.Keep(host, n.Name, byName(n))
	if links != nil {
		return errors.Join(ports, links)
	}

	return errors.Join(ports, gcHostLocal(n))
}

func gcHostLocal(n *conf.Network) error {
	keep, listed := valid(n)
	if !listed {
		return nil
	}
	pool, err := ipam.OpenIfThere(n.IPAM.DataDir, n.Name, n.IPAM.BootScoped)
	if err != nil || pool == nil {
		return err
	}
	return pool.Keep(keep)
}

// gcRecords comes before the host ports go, as in DEL.
func gcRecords(n *conf.Network) error {
	keep, listed := valid(n)
	pool, err := ipam.OpenIfThere(n.IPAM.DataDir, n.Name, n.IPAM.BootScoped)
	if err != nil || pool == nil || !listed {
		return err
	}
	return pool.Locked(func() error { return portrecord.Of(pool).Keep(keep) })
}

func gcNAT(n *conf.Network) error {
	if !n.HasValid {
		return nil
	}
	return withNAT(n.NATConfig(), func(t *hostnat.Table) error { return t.Keep(byName(n)) })
}

// unavailable is what STATUS answers when an ADD now would fail (CNI specification, "STATUS").
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return types.NewError(types.ErrPluginNotAvailable, "the plugin cannot serve ADD", err.Error())
}

func statusBridge(n *conf.Network) error {
	host, err := rtnl.Open()
	if err != nil {
		return unavailable(err)
	}
	defer func() { _ = host.Close() }()

	if err := bridge.Usable(host, n.BridgeConfig(), gateways(n)); err != nil {
		return unavailable(err)
	}

	if n.IPMasq || n.Role == conf.TrivetCNI {
		if err := statusNAT(n); err != nil {
			return err
		}
	}

	if n.IPAM == nil {
		return nil
	}

	return statusHostLocal(n)
}

// gateways are the addresses that the bridge has for pods of this network: for each set of ranges, one of
// these.
func gateways(n *conf.Network) (all [][]bridge.Address) {
	if n.IPAM == nil {
		return nil
	}
	for _, set := range n.IPAM.Sets {
		var ranges []bridge.Address
		for _, r := range set {
			ranges = append(ranges, bridge.Address{Prefix: r.Subnet, Gateway: r.Gateway})
		}
		all = append(all, ranges)
	}
	return all
}

func statusNAT(n *conf.Network) error {
	return unavailable(withNAT(n.NATConfig(), func(t *hostnat.Table) error { return t.Usable() }))
}

// statusHostLocal: the directory can be written and every range set has an address left.
func statusHostLocal(n *conf.Network) error {
	if n.IPAM == nil {
		return unavailable(errors.New("ipam is missing"))
	}

	pool, err := ipam.Open(n.IPAM.DataDir, n.Name, n.IPAM.BootScoped)
	if err != nil {
		return unavailable(err)
	}
	if err := pool.Writable(); err != nil {
		return unavailable(err)
	}

	for _, set := range n.IPAM.Sets {
		free, held, err := pool.Free(set, 1)
		if err != nil {
			return unavailable(err)
		}

		if free == 0 {
			return unavailable(fmt.Errorf("%w in %s (%d reservations)",
				ipam.ErrExhausted, set[0].Subnet, held))
		}
	}

	return nil
}
