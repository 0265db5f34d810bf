// Package listener finds which processes of the host listen on a port, before a pod's host port takes it
// over: a process never gets what a host port translates.
package listener

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Port is a port of the host.
type Port struct {
	// Protocol is "tcp", "udp" or "sctp".
	Protocol string
	// Address is one of the host's, or 0.0.0.0 or :: for all of the family.
	Address netip.AddrPort
}

func (p Port) String() string { return fmt.Sprintf("host port %s/%s", p.Address, p.Protocol) }

// socket is one that listens.
type socket struct {
	address netip.AddrPort
	// only6 says that a socket on :: takes no IPv4.
	only6 bool
	inode uint32
	uid   uint32
}

// receives reports whether the socket receives packets to p.
func (s socket) receives(p Port) bool {
	a := s.address.Addr()
	b := p.Address.Addr()
	switch {
	case s.address.Port() != p.Address.Port():
		return false
	case a.Is4() == b.Is4():
		return a == b || a.IsUnspecified() || b.IsUnspecified()
	}
	return a == netip.IPv6Unspecified() && !s.only6
}

// Refuse returns an error when a process listens on one of the ports; it names both. It looks at the sockets
// of the calling thread's network namespace.
func Refuse(ports []Port) error {
	if len(ports) == 0 {
		return nil
	}

	kernel, err := netlink.Open(netlink.SocketDiag)
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()

	for _, protocol := range []string{"tcp", "udp", "sctp"} {
		wanted := slices.DeleteFunc(slices.Clone(ports), func(p Port) bool { return p.Protocol != protocol })
		if len(wanted) == 0 {
			continue
		}

		// One question for the span of ports: the kernel filters, and a second question costs more.
		byNumber := func(a, b Port) int { return int(a.Address.Port()) - int(b.Address.Port()) }
		first := slices.MinFunc(wanted, byNumber).Address.Port()
		last := slices.MaxFunc(wanted, byNumber).Address.Port()
		found, err := list(kernel, protocol, first, last)
		if err != nil {
			return fmt.Errorf("look for processes that listen on host ports: %w", err)
		}
		if err := refuse(wanted, found); err != nil {
			return err
		}
	}

	return nil
}

func refuse(wanted []Port, found []socket) error {
	for _, p := range wanted {
		for _, s := range found {
			if s.receives(p) {
				return fmt.Errorf("%s is taken: %s listens on %s", p, owner(s), s.address)
			}
		}
	}
	return nil
}

// list asks the kernel, or reads /proc where the kernel does not have the module that answers.
func list(kernel *netlink.Conn, protocol string, first, last uint16) ([]socket, error) {
	found, known, err := query(kernel, protocol, first, last)
	if known || err != nil {
		return found, err
	}
	return readProc(protocol)
}
