// Package addresses has the IPAM plugins, one file each: they allocate addresses and make no interface.
// Another program calls one of them by exec (CNI specification, section 4); the main plugins of this program
// call them in process.
package addresses

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/internal/undo"
)

// HostLocal is upstream's plugin of that name.
type HostLocal struct{}

// read reads the configuration, which has to have an ipam.
func (HostLocal) read(c *call.Call) (*conf.IPAM, error) {
	i, err := conf.ReadIPAM(c.Stdin, c.Args)
	if err == nil && i == nil {
		err = fmt.Errorf("%w: ipam is missing", conf.ErrInvalid)
	}
	return i, err
}

// Reserve allocates addresses for owner, and pushes on back how to release them.
func (HostLocal) Reserve(i *conf.IPAM, owner ipam.Owner, back *undo.Stack) (*ipam.Pool, []ipam.Lease, error) {
	pool, err := i.Pool.Create()
	if err != nil {
		return nil, nil, err
	}
	leases, err := pool.Allocate(owner, i.Sets, i.Requested)
	if err != nil {
		return nil, nil, err
	}
	back.Push("release addresses", func(context.Context) error { return pool.Release(owner) })
	return pool, leases, nil
}

// Add allocates addresses. The result has no interface.
func (h HostLocal) Add(c *call.Call) (err error) {
	i, err := h.read(c)
	if err != nil {
		return err
	}

	var back undo.Stack
	defer back.Unwind(context.Background(), &err)

	// From here on a failure, of printing the result too, releases the addresses.
	_, leases, err := h.Reserve(i, c.Owner, &back)
	if err != nil {
		return err
	}

	result := call.NewResult()
	for _, l := range leases {
		result.IPs = append(result.IPs, &types100.IPConfig{
			Address: prefix.IPNet(l.Prefix()),
			Gateway: l.Range.Gateway.AsSlice(),
		})
	}

	for n := range i.Routes {
		result.Routes = append(result.Routes, &i.Routes[n])
	}

	result.DNS, err = call.DNS(result.DNS, i)
	if err != nil {
		return err
	}

	return c.Print(result)
}

// Check returns an error unless the addresses of prevResult are reserved for the attachment.
func (h HostLocal) Check(c *call.Call) error {
	i, err := h.read(c)
	if err != nil {
		return err
	}

	pool, err := i.Pool.Create()
	if err != nil {
		return err
	}

	held, err := pool.Find(c.Owner)
	if err != nil {
		return err
	}

	return checkHeld(c, held)
}

func checkHeld(c *call.Call, held []netip.Addr) error {
	if len(held) == 0 {
		return fmt.Errorf("no address is reserved for %s", c.Owner)
	}
	for _, ip := range c.PreviousIPs() {
		if a := prefix.Addr(ip.Address.IP); !slices.Contains(held, a) {
			return fmt.Errorf("address %s is not reserved for %s", a, c.Owner)
		}
	}
	return nil
}

// Del releases what the attachment holds; nothing is success.
func (HostLocal) Del(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil {
		return err
	}
	pool, err := t.Pool.Open()
	if err != nil || pool == nil {
		return err
	}
	return pool.Release(c.Owner)
}

// GC releases what attachments hold that the runtime does not have.
func (HostLocal) GC(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil || t.Valid == nil {
		return err
	}
	pool, err := t.Pool.Open()
	if err != nil || pool == nil {
		return err
	}
	return pool.Keep(t.Valid.Has)
}

// Status returns an error unless the pool can be written and every range set has an address left.
func (h HostLocal) Status(c *call.Call) error {
	i, err := h.read(c)
	if err != nil {
		return err
	}

	pool, err := i.Pool.Create()
	if err != nil {
		return err
	}
	if err := pool.Writable(); err != nil {
		return err
	}

	// A container gets an address of each set, so each must have one.
	for _, set := range i.Sets {
		free, held, err := pool.Free(set, 1)
		if err != nil {
			return err
		}
		if free == 0 {
			return fmt.Errorf("%w in %s (%d reservations)", ipam.ErrExhausted, set[0].Subnet, held)
		}
	}

	return nil
}
