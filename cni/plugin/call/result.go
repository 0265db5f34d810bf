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

// PreviousRoutes returns the routes of Previous.
func (c *Call) PreviousRoutes() (all []types.Route) {
	if c.Previous == nil {
		return nil
	}
	for _, r := range c.Previous.Routes {
		all = append(all, *r)
	}
	return all
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

// PreviousMTU returns the MTU of an interface of the host in Previous; 0 when it is not known.
func (c *Call) PreviousMTU(host string) int {
	if c.Previous == nil {
		return 0
	}
	for _, i := range c.Previous.Interfaces {
		if i.Sandbox == "" && i.Name == host {
			return i.Mtu
		}
	}
	return 0
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

// RequirePrevious returns an error when the runtime sent no prevResult to a plugin that works on it.
func (c *Call) RequirePrevious() error {
	if c.Previous == nil {
		return fmt.Errorf("%w: prevResult is missing: the plugin works on what those before it have made",
			conf.ErrInvalid)
	}
	return nil
}
