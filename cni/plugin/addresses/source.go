package addresses

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/internal/undo"
)

// Source is the IPAM plugin of a main plugin: one of this program, called in process, or another one.
type Source interface {
	// Reserve allocates addresses for the attachment, and pushes on back how to release them.
	Reserve(c *call.Call, back *undo.Stack) (Allocation, error)
	Check(*call.Call) error
	Del(*call.Call) error
	GC(*call.Call) error
	Status(*call.Call) error
}

// Allocation is what an attachment gets.
type Allocation struct {
	Addresses []Address
	Routes    []types.Route
	DNS       types.DNS
}

// Address is an address with its prefix length. Gateway is zero when the plugin names none.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// For returns the IPAM plugin that a configuration names; nil for none. config is that of host-local, which
// the caller has read already.
func For(kind string, config *conf.IPAM) Source {
	switch kind {
	case "":
		return nil
	case conf.HostLocal, conf.Own:
		return HostLocal{Config: config}
	case conf.Static:
		return Static{}
	}
	return Delegate{Type: kind}
}

// result returns what an IPAM plugin answers: it has no interface.
func (a Allocation) result() *types100.Result {
	r := call.NewResult()
	for _, address := range a.Addresses {
		ip := &types100.IPConfig{Address: prefix.IPNet(address.Prefix)}
		if address.Gateway.IsValid() {
			ip.Gateway = address.Gateway.AsSlice()
		}

		r.IPs = append(r.IPs, ip)
	}

	for i := range a.Routes {
		r.Routes = append(r.Routes, &a.Routes[i])
	}

	r.DNS = a.DNS
	return r
}

// fromResult reads the answer of another IPAM plugin.
func fromResult(r *types100.Result) (a Allocation, err error) {
	if len(r.IPs) == 0 {
		return a, errors.New("it answers without an address")
	}

	for _, ip := range r.IPs {
		p, err := prefix.FromIPNet(ip.Address)
		if err != nil {
			return a, fmt.Errorf("its answer: %w", err)
		}

		a.Addresses = append(a.Addresses, Address{Prefix: p, Gateway: prefix.Addr(ip.Gateway)})
	}

	for _, route := range r.Routes {
		a.Routes = append(a.Routes, *route)
	}

	a.DNS = r.DNS
	return a, nil
}
