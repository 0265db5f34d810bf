package chained

import (
	"fmt"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/meta"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sourceroute"
)

// SourceRoutes is upstream's sbr: a container with several networks answers by the interface that was
// asked. All that it makes is in the container's network namespace.
type SourceRoutes struct{}

// sources returns the addresses of the interface that prevResult names. One that names no interface is
// taken to be of it.
func sources(c *call.Call) (all []sourceroute.Address, err error) {
	if err := c.RequirePrevious(); err != nil {
		return nil, err
	}

	for _, ip := range c.Previous.IPs {
		if isOther(c, ip.Interface) {
			continue
		}

		p, err := prefix.FromIPNet(ip.Address)
		if err != nil {
			return nil, fmt.Errorf("%w: prevResult: %w", conf.ErrInvalid, err)
		}
		all = append(all, sourceroute.Address{Prefix: p, Gateway: prefix.Addr(ip.Gateway)})
	}

	if len(c.Previous.IPs) == 0 {
		const format = "%w: prevResult has no address on interface %s"
		return nil, fmt.Errorf(format, conf.ErrInvalid, c.Owner.IfName)
	}

	return all, nil
}

// isOther reports whether an interface of prevResult, by its index, is certainly another one than the call's.
func isOther(c *call.Call, index *int) bool {
	all := c.Previous.Interfaces
	return index != nil && *index >= 0 && *index < len(all) && all[*index].Name != c.Owner.IfName
}

// Add makes tables and rules. When a step fails, the rules are removed.
func (SourceRoutes) Add(c *call.Call) error {
	config, err := meta.ReadSourceRoutes(c.Stdin)
	if err != nil {
		return err
	}
	addresses, err := sources(c)
	if err != nil {
		return err
	}

	err = inPod(c, func(pod *rtnl.Conn, link rtnl.Link) error {
		seen, err := sourceroute.Observe(pod, link.Index)
		if err != nil {
			return err
		}
		return config.Decide(seen, addresses).Apply(pod)
	})
	if err != nil {
		return err
	}

	return c.Print(c.Previous)
}

// Check returns an error unless each address has its rule.
func (SourceRoutes) Check(c *call.Call) error {
	config, err := meta.ReadSourceRoutes(c.Stdin)
	if err != nil {
		return err
	}
	addresses, err := sources(c)
	if err != nil {
		return err
	}
	return inPod(c, func(pod *rtnl.Conn, _ rtnl.Link) error {
		return sourceroute.Check(pod, addresses, config.Table)
	})
}

// Del removes the rules where namespace and interface are still there.
func (SourceRoutes) Del(c *call.Call) error {
	table, err := meta.ReadSourceTable(c.Stdin)
	if err != nil {
		return err
	}
	if !c.HasNetns() {
		return nil
	}

	err = inPod(c, func(pod *rtnl.Conn, link rtnl.Link) error {
		return sourceroute.Remove(pod, link.Index, table)
	})
	if netlink.IsNotExist(err) {
		return nil
	}

	return err
}

// GC does nothing: there is nothing outside a container's namespace.
func (SourceRoutes) GC(*call.Call) error { return nil }

// Status returns an error when the configuration makes no sense.
func (SourceRoutes) Status(c *call.Call) error {
	_, err := meta.ReadSourceRoutes(c.Stdin)
	return err
}
