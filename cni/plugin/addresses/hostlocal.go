// Package addresses has the IPAM plugins, one file each: they allocate addresses and make no interface.
// Another program calls one of them by exec (CNI specification, section 4); the main plugins of this program
// call them in process.
package addresses

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/internal/undo"
)

// HostLocal is upstream's plugin of that name.
type HostLocal struct {
	// Config is nil when it is to be read from the call.
	Config *conf.IPAM
}

// read returns the configuration, which has to have an ipam.
func (h HostLocal) read(c *call.Call) (*conf.IPAM, error) {
	if h.Config != nil {
		return h.Config, nil
	}
	i, err := conf.ReadIPAM(c.Stdin, c.Args)
	if err == nil && i == nil {
		err = fmt.Errorf("%w: ipam is missing", conf.ErrInvalid)
	}
	return i, err
}

// Reserve allocates addresses for the attachment.
func (h HostLocal) Reserve(c *call.Call, back *undo.Stack) (a Allocation, err error) {
	i, err := h.read(c)
	if err != nil {
		return a, err
	}

	pool, err := i.Pool.Create()
	if err != nil {
		return a, err
	}

	leases, err := pool.Allocate(c.Owner, i.Sets, i.Requested)
	if err != nil {
		return a, err
	}

	// From here on a failure, of printing the result too, releases the addresses.
	back.Push("release addresses", func(context.Context) error { return pool.Release(c.Owner) })

	for _, l := range leases {
		a.Addresses = append(a.Addresses, Address{Prefix: l.Prefix(), Gateway: l.Range.Gateway})
	}

	a.Routes = i.Routes
	if i.ResolvConf == "" {
		return a, nil
	}

	if a.DNS, err = conf.ReadResolvConf(i.ResolvConf); err != nil {
		err = fmt.Errorf("ipam: resolvConf: %w", err)
	}

	return a, err
}

// Add allocates addresses. The result has no interface.
func (h HostLocal) Add(c *call.Call) (err error) {
	var back undo.Stack
	defer back.Unwind(context.Background(), &err)
	a, err := h.Reserve(c, &back)
	if err != nil {
		return err
	}
	return c.Print(a.result())
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

// Status returns an error unless the pool can be written and every range set has an address left, beside
// those that the configuration wants to be free.
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
		free, held, err := pool.Free(set, 1+i.StatusReserve)
		if err != nil {
			return err
		}
		if free == 0 {
			return fmt.Errorf("%w in %s (%d reservations)", ipam.ErrExhausted, set[0].Subnet, held)
		}
		if free <= i.StatusReserve {
			const format = "%w in %s: %d, %d reservations, statusReserve %d"
			return fmt.Errorf(format, ipam.ErrNearlyExhausted, set[0].Subnet, free, held, i.StatusReserve)
		}
	}

	return nil
}
