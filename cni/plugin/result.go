package plugin

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
)

var (
	defaultV4 = netip.MustParsePrefix("0.0.0.0/0")
	defaultV6 = netip.MustParsePrefix("::/0")
)

// attachment is what the leases ask of the pod's interface.
func (c *call) attachment(leases []ipam.Lease) (bridge.Attachment, error) {
	a := bridge.Attachment{Owner: c.owner(), Netns: c.args.Netns, MAC: c.MAC}
	for _, l := range leases {
		a.Addresses = append(
			a.Addresses,
			bridge.Address{
				Prefix:  netip.PrefixFrom(l.Address, l.Range.Subnet.Bits()),
				Gateway: l.Range.Gateway,
			},
		)
	}
	return a, c.routes(&a)
}

// routes adds those of the configuration and the default routes.
func (c *call) routes(a *bridge.Attachment) error {
	if c.IPAM == nil {
		return nil
	}

	seen := map[netip.Prefix]bool{}
	for _, r := range c.IPAM.Routes {
		route, err := toRoute(r)
		if err != nil {
			return fmt.Errorf("ipam: routes: %w", err)
		}
		if !route.Gateway.IsValid() {
			route.Gateway = gatewayFor(a.Addresses, route.Dst.Addr().Is4())
		}

		seen[route.Dst] = true
		a.Routes = append(a.Routes, route)
	}

	if !c.IsDefaultGateway {
		return nil
	}

	for _, dst := range []netip.Prefix{defaultV4, defaultV6} {
		gateway := gatewayFor(a.Addresses, dst.Addr().Is4())
		if gateway.IsValid() && !seen[dst] {
			a.Routes = append(a.Routes, rtnl.Route{Dst: dst, Gateway: gateway})
		}
	}

	return nil
}

func gatewayFor(addresses []bridge.Address, is4 bool) netip.Addr {
	for _, a := range addresses {
		if a.Prefix.Addr().Is4() == is4 {
			return a.Gateway
		}
	}
	return netip.Addr{}
}

func toRoute(r types.Route) (rtnl.Route, error) {
	dst, err := toPrefix(r.Dst)
	if err != nil {
		return rtnl.Route{}, err
	}

	route := rtnl.Route{
		Dst:      dst.Masked(),
		Gateway:  toAddr(r.GW),
		MTU:      r.MTU,
		AdvMSS:   r.AdvMSS,
		Priority: r.Priority,
	}
	if r.Table != nil {
		route.Table = *r.Table
	}
	if r.Scope != nil {
		route.Scope = *r.Scope
	}

	return route, nil
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func toPrefix(n net.IPNet) (netip.Prefix, error) {
	ones, bits := n.Mask.Size()
	a := toAddr(n.IP)
	if !a.IsValid() || bits == 0 {
		return netip.Prefix{}, fmt.Errorf("%s is no address with prefix length", n.String())
	}
	if a.Is4() && bits == 128 {
		ones -= 96
	}
	return netip.PrefixFrom(a, ones), nil
}

func fromPrefix(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// podInterface is the index of the pod's interface in the result: bridge, host's end, pod's end.
const podInterface = 2

// describe fills in the result (CNI specification, section 5).
func (c *call) describe(result *types100.Result, ends bridge.Ends, a bridge.Attachment) error {
	result.Interfaces = []*types100.Interface{
		{Name: ends.Bridge.Name, Mac: ends.Bridge.MAC.String(), Mtu: ends.Bridge.MTU},
		{Name: ends.Host.Name, Mac: ends.Host.MAC.String(), Mtu: ends.Host.MTU},
		{Name: ends.Pod.Name, Mac: ends.Pod.MAC.String(), Mtu: ends.Pod.MTU, Sandbox: c.args.Netns},
	}

	for _, address := range a.Addresses {
		ip := &types100.IPConfig{Interface: types100.Int(podInterface), Address: fromPrefix(address.Prefix)}
		if address.Gateway.IsValid() {
			ip.Gateway = address.Gateway.AsSlice()
		}

		result.IPs = append(result.IPs, ip)
	}

	for _, r := range a.Routes {
		result.Routes = append(result.Routes, fromRoute(r))
	}

	return c.resolver(result)
}

func fromRoute(r rtnl.Route) *types.Route {
	route := &types.Route{
		Dst:      fromPrefix(r.Dst),
		MTU:      r.MTU,
		AdvMSS:   r.AdvMSS,
		Priority: r.Priority,
	}
	if r.Gateway.IsValid() {
		route.GW = r.Gateway.AsSlice()
	}
	if r.Table != 0 {
		route.Table = types100.Int(r.Table)
	}
	if r.Scope != 0 {
		route.Scope = types100.Int(r.Scope)
	}

	return route
}

// resolver puts the contents of ipam.resolvConf into the result, unless the configuration has dns of its own.
func (c *call) resolver(result *types100.Result) error {
	if c.IPAM == nil || c.IPAM.ResolvConf == "" || !c.DNS.IsEmpty() {
		return nil
	}
	dns, err := conf.Resolver(c.IPAM.ResolvConf)
	if err != nil {
		return fmt.Errorf("ipam: resolvConf: %w", err)
	}
	result.DNS = dns
	return nil
}

// fromPrevious is the attachment that prevResult tells of. Plugins later in the chain may have changed the
// interface, and say so there.
func (c *call) fromPrevious() (bridge.Attachment, error) {
	a := bridge.Attachment{
		Owner: c.owner(),
		Netns: c.args.Netns,
		MAC:   c.MAC,
		MTU:   c.MTU,
	}

	for _, i := range c.previous.Interfaces {
		if i.Sandbox == "" || i.Name != c.args.IfName {
			continue
		}
		if mac, err := net.ParseMAC(i.Mac); err == nil {
			a.MAC = mac
		}
		if i.Mtu != 0 {
			a.MTU = i.Mtu
		}
	}

	for _, ip := range c.previous.IPs {
		if !c.isPods(ip.Interface) {
			continue
		}

		prefix, err := toPrefix(ip.Address)
		if err != nil {
			return a, fmt.Errorf("prevResult: %w", err)
		}

		a.Addresses = append(a.Addresses, bridge.Address{Prefix: prefix, Gateway: toAddr(ip.Gateway)})
	}

	return a, c.routes(&a)
}

// isPods reports whether an address of prevResult is on the interface in question; one without interface is
// taken to be.
func (c *call) isPods(index *int) bool {
	if index == nil {
		return true
	}
	if *index < 0 || *index >= len(c.previous.Interfaces) {
		return false
	}
	i := c.previous.Interfaces[*index]
	return i.Sandbox != "" && i.Name == c.args.IfName
}
