// Package listener finds which processes of the host listen on a port, before a pod's host port takes it
// over: what a host port translates never gets to them.
package listener

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// Port is a port of the host. Its address is one of the host's, or 0.0.0.0 or :: for all of the family.
type Port struct {
	Protocol string // "tcp", "udp" or "sctp"
	Address  netip.AddrPort
}

func (p Port) String() string { return fmt.Sprintf("host port %s/%s", p.Address, p.Protocol) }

// socket is one that listens.
type socket struct {
	address netip.AddrPort
	only6   bool // one of :: takes no IPv4
	inode   uint32
	uid     uint32
}

// meets reports whether packets to p would get to s.
func (s socket) meets(p Port) bool {
	a, b := s.address.Addr(), p.Address.Addr()
	switch {
	case s.address.Port() != p.Address.Port():
		return false
	case a.Is4() == b.Is4():
		return a == b || a.IsUnspecified() || b.IsUnspecified()
	}
	return a == netip.IPv6Unspecified() && !s.only6
}

// Refuse is an error when a process listens on one of the ports; it names both. Sockets are those of the
// thread's network namespace.
func Refuse(ports []Port) error {
	if len(ports) == 0 {
		return nil
	}

	kernel, err := rtnl.OpenSocketDiag()
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()

	for _, protocol := range []string{"tcp", "udp", "sctp"} {
		wanted := slices.DeleteFunc(slices.Clone(ports), func(p Port) bool { return p.Protocol != protocol })
		if len(wanted) == 0 {
			continue
		}

		numbers := func(a, b Port) int { return int(a.Address.Port()) - int(b.Address.Port()) }
		first, last := slices.MinFunc(wanted, numbers), slices.MaxFunc(wanted, numbers)
		found, err := list(kernel, protocol, first.Address.Port(), last.Address.Port())
		if err != nil {
			return fmt.Errorf("look for processes that listen on host ports: %w", err)
		}

		for _, p := range wanted {
			for _, s := range found {
				if s.meets(p) {
					return fmt.Errorf("%s is taken: %s listens on %s", p, owner(s), s.address)
				}
			}
		}
	}

	return nil
}

// list asks the kernel, or reads /proc where the kernel has not the module that answers.
func list(kernel *rtnl.Conn, protocol string, first, last uint16) ([]socket, error) {
	found, known, err := ask(kernel, protocol, first, last)
	if known || err != nil {
		return found, err
	}
	return read(protocol)
}
