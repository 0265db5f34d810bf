package call

import (
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// NewResult returns an empty result. Print converts it to the version of the configuration.
func NewResult() *types100.Result {
	return &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
}

// PreviousIPs returns the addresses of Previous that are on the interface of the call. One without an
// interface is taken to be.
func (c *Call) PreviousIPs() (ips []*types100.IPConfig) {
	if c.Previous == nil {
		return nil
	}
	for _, ip := range c.Previous.IPs {
		if ip.Interface == nil || c.isOwnInterface(*ip.Interface) {
			ips = append(ips, ip)
		}
	}
	return ips
}

// PreviousInterface returns the interface of the call in Previous, or nil.
func (c *Call) PreviousInterface() *types100.Interface {
	if c.Previous == nil {
		return nil
	}
	for i, found := range c.Previous.Interfaces {
		if c.isOwnInterface(i) {
			return found
		}
	}
	return nil
}

// isOwnInterface reports whether the interface of Previous with an index is the one of the call: in the
// container, and of its name.
func (c *Call) isOwnInterface(index int) bool {
	if index < 0 || index >= len(c.Previous.Interfaces) {
		return false
	}
	i := c.Previous.Interfaces[index]
	return i.Sandbox != "" && i.Name == c.Owner.IfName
}

// ParseRoute converts a route of a configuration.
func ParseRoute(r types.Route) (rtnl.Route, error) {
	dst, err := prefix.FromIPNet(r.Dst)
	if err != nil {
		return rtnl.Route{}, err
	}

	route := rtnl.Route{
		Dst:      dst.Masked(),
		Gateway:  prefix.Addr(r.GW),
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

// FormatRoute converts a route for a result.
func FormatRoute(r rtnl.Route) *types.Route {
	route := &types.Route{
		Dst:      prefix.IPNet(r.Dst),
		MTU:      r.MTU,
		AdvMSS:   r.AdvMSS,
		Priority: r.Priority,
	}
	if r.Gateway.IsValid() {
		route.GW = r.Gateway.AsSlice()
	}
	if r.Table != 0 {
		route.Table = new(r.Table)
	}
	if r.Scope != 0 {
		route.Scope = new(r.Scope)
	}

	return route
}

// DNS returns the dns of a result: what the configuration has, else the content of ipam.resolvConf.
func DNS(configured types.DNS, i *conf.IPAM) (types.DNS, error) {
	if i == nil || i.ResolvConf == "" || !configured.IsEmpty() {
		return configured, nil
	}
	dns, err := conf.ReadResolvConf(i.ResolvConf)
	if err != nil {
		return dns, fmt.Errorf("ipam: resolvConf: %w", err)
	}
	return dns, nil
}
