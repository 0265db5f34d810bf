package interfaces

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/addresses"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// newAttachment returns what IPAM and the configuration say about the pod's interface.
func newAttachment(c *call.Call, n *conf.Network, got addresses.Allocation) (bridge.Attachment, error) {
	a := bridge.Attachment{Owner: c.Owner, Netns: c.Netns, MAC: n.Runtime.MAC}
	for _, address := range got.Addresses {
		// IPAM does not have to name a gateway: then it is the first address of the subnet.
		if !address.Gateway.IsValid() && n.Bridge.IsGateway {
			address.Gateway = address.Prefix.Masked().Addr().Next()
		}

		a.Addresses = append(a.Addresses, bridge.Address(address))
	}
	var err error
	a.Routes, err = routes(n.DefaultGateway, got.Routes, a.Addresses)
	return a, err
}

// previousAttachment returns what prevResult says about the pod's interface. Plugins later in the chain may
// have changed it, and say so there.
func previousAttachment(c *call.Call, n *conf.Network) (bridge.Attachment, error) {
	a, err := attachmentOf(c)
	if err != nil {
		return a, err
	}
	if a.MAC == nil {
		a.MAC = n.Runtime.MAC
	}
	if a.HostMTU == 0 {
		a.HostMTU = n.Bridge.MTU
	}

	a.Routes, err = routes(n.DefaultGateway, previousRoutes(c, n), a.Addresses)
	return a, err
}

// attachmentOf returns the pod's interface and addresses of prevResult. What the configuration would
// allocate now is another matter.
func attachmentOf(c *call.Call) (bridge.Attachment, error) {
	a := bridge.Attachment{Owner: c.Owner, Netns: c.Netns}
	if i := c.PreviousInterface(); i != nil {
		if mac, err := net.ParseMAC(i.Mac); err == nil {
			a.MAC = mac
		}
		a.MTU = i.Mtu
	}

	a.HostMTU = c.PreviousMTU(bridge.HostName(c.Name, c.Owner))

	for _, ip := range c.PreviousIPs() {
		p, err := prefix.FromIPNet(ip.Address)
		if err != nil {
			return a, fmt.Errorf("%w: prevResult: %w", conf.ErrInvalid, err)
		}

		a.Addresses = append(a.Addresses, bridge.Address{Prefix: p, Gateway: prefix.Addr(ip.Gateway)})
	}

	return a, nil
}

// previousRoutes returns the routes that the pod got from IPAM: host-local's are in the configuration.
func previousRoutes(c *call.Call, n *conf.Network) []types.Route {
	if n.IPAM != nil {
		return n.IPAM.Routes
	}
	return c.PreviousRoutes()
}

// routes returns the pod's routes: those that IPAM gives, and default routes if they are wanted and there are
// none.
func routes(wantDefault bool, given []types.Route, pod []bridge.Address) (all []rtnl.Route, err error) {
	configured := map[netip.Prefix]bool{}
	for _, r := range given {
		route, err := call.ParseRoute(r)
		if err != nil {
			return nil, fmt.Errorf("%w: ipam: routes: %w", conf.ErrInvalid, err)
		}
		if !route.Gateway.IsValid() {
			route.Gateway = gatewayFor(route.Dst, pod)
		}

		configured[route.Dst] = true
		all = append(all, route)
	}

	// A default route of IPAM comes instead of the bridge's.
	if !wantDefault {
		return all, nil
	}

	for _, dst := range []netip.Prefix{prefix.Default4, prefix.Default6} {
		gateway := gatewayFor(dst, pod)
		if gateway.IsValid() && !configured[dst] {
			all = append(all, rtnl.Route{Dst: dst, Gateway: gateway})
		}
	}

	return all, nil
}

// gatewayFor returns the gateway of the pod's first address in the family of a destination, or the zero Addr.
func gatewayFor(dst netip.Prefix, pod []bridge.Address) netip.Addr {
	for _, a := range pod {
		if prefix.SameFamily(a.Prefix.Addr(), dst.Addr()) {
			return a.Gateway
		}
	}
	return netip.Addr{}
}

func podAddresses(a bridge.Attachment) (all []netip.Addr) {
	for _, address := range a.Addresses {
		all = append(all, address.Prefix.Addr())
	}
	return all
}

// podInterface is the index of the pod's interface in the result of describe.
const podInterface = 2

// describe returns the result of Add (CNI specification, section 5): bridge, host's end, pod's end, and what
// the pod's end has.
func describe(c *call.Call, ends bridge.Ends, a bridge.Attachment) *types100.Result {
	result := call.NewResult()
	for _, l := range []rtnl.Link{ends.Bridge, ends.Host, ends.Pod} {
		i := &types100.Interface{Name: l.Name, Mac: l.MAC.String(), Mtu: l.MTU}
		result.Interfaces = append(result.Interfaces, i)
	}

	result.Interfaces[podInterface].Sandbox = c.Netns

	// Addresses and routes are those of the pod's interface.
	for _, address := range a.Addresses {
		ip := &types100.IPConfig{
			Interface: new(podInterface),
			Address:   prefix.IPNet(address.Prefix),
		}
		if address.Gateway.IsValid() {
			ip.Gateway = address.Gateway.AsSlice()
		}

		result.IPs = append(result.IPs, ip)
	}

	for _, r := range a.Routes {
		result.Routes = append(result.Routes, call.FormatRoute(r))
	}

	return result
}
