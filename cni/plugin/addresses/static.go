package addresses

import (
	"fmt"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/internal/undo"
)

// Static is upstream's plugin of that name: it gives an attachment the addresses that the configuration or
// the runtime names, and reserves nothing.
type Static struct{}

// Reserve returns the addresses.
func (Static) Reserve(c *call.Call, _ *undo.Stack) (a Allocation, err error) {
	s, err := conf.ReadStatic(c.Stdin, c.Args)
	if err != nil {
		return a, err
	}

	for _, address := range s.Addresses {
		a.Addresses = append(a.Addresses, Address(address))
	}

	a.Routes = s.Routes
	a.DNS = s.DNS
	return a, nil
}

// Add answers with the addresses.
func (s Static) Add(c *call.Call) error {
	a, err := s.Reserve(c, nil)
	if err != nil {
		return err
	}
	return c.Print(a.result())
}

// Check returns an error when prevResult has one of the addresses with another gateway.
func (Static) Check(c *call.Call) error {
	s, err := conf.ReadStatic(c.Stdin, c.Args)
	if err != nil {
		return err
	}
	if c.Previous == nil {
		return fmt.Errorf("%w: prevResult is missing", conf.ErrInvalid)
	}

	for _, want := range s.Addresses {
		for _, have := range c.Previous.IPs {
			gateway := prefix.Addr(have.Gateway)
			if prefix.Addr(have.Address.IP) != want.Prefix.Addr() || !want.Gateway.IsValid() {
				continue
			}
			if gateway != want.Gateway {
				return fmt.Errorf("address %s has gateway %s, not %s", want.Prefix, gateway, want.Gateway)
			}
		}
	}

	return nil
}

// Del does nothing: nothing is reserved.
func (Static) Del(*call.Call) error { return nil }

// GC does nothing: nothing is reserved.
func (Static) GC(*call.Call) error { return nil }

// Status returns an error unless the configuration makes sense.
func (Static) Status(c *call.Call) error {
	_, err := conf.ReadStatic(c.Stdin, "")
	return err
}
