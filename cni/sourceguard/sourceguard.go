// Package sourceguard drops what a pod sends with another MAC address or another IP address than its own,
// where it comes in at the host's end of the pod's veth. It is a program of classic BPF, which the kernel
// compiles and runs before anything else of the host sees the frame. It belongs to the interface: nothing
// of it can be left, and no table of nftables that somebody flushes has it.
package sourceguard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Guard is what a pod may send from.
type Guard struct {
	MAC net.HardwareAddr
	// Addresses are the pod's. Where IPAM gives none, what comes from its MAC address may be anything.
	Addresses []netip.Addr
}

// Ensure guards an interface, which has no guard yet. Agents that attach programs to it find the discipline
// that they want: the kernel lets none of them add it beside another one (ADR 0966).
func (g Guard) Ensure(host *rtnl.Conn, index int) error {
	program, err := g.program()
	if err != nil {
		return err
	}

	errs, err := host.Do(rtnl.NewIngress(index, rtnl.Both), rtnl.NewProgram(index, program))
	if len(errs) > 0 && netlink.IsExist(errs[0]) {
		errs[0] = nil
	}
	err = errors.Join(append(errs, err)...)
	if IsLack(err) {
		return fmt.Errorf("the kernel lacks CONFIG_NET_SCH_INGRESS or CONFIG_NET_CLS_BPF: %w", err)
	}
	return err
}

// IsLack reports whether an error of Ensure or Try is that the kernel has no such guards, which stays so.
func IsLack(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) }

// Check returns an error unless an interface has the guard.
func (g Guard) Check(host *rtnl.Conn, veth rtnl.Link) error {
	want, err := g.program()
	if err != nil {
		return err
	}
	have, err := host.ProgramOf(veth.Index)
	switch {
	case err != nil:
		return err
	case have == nil:
		return fmt.Errorf("interface %s lets the pod send from any address", veth.Name)
	case !bytes.Equal(have, want):
		const format = "interface %s lets the pod send from others than %s %s"
		return fmt.Errorf(format, veth.Name, g.MAC, g.Addresses)
	}
	return nil
}

// Try returns an error if the kernel has no such guards. It may load modules.
func Try() error { return namespace.InOwnNet(Rehearse) }

// Rehearse is Try in the network namespace that it is called in, to whose loopback interface it gives a guard
// that drops nearly everything.
func Rehearse() error {
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	const lo = 1
	return Guard{MAC: make(net.HardwareAddr, 6)}.Ensure(host, lo)
}

// program returns the instructions as the kernel reads them: an array of struct sock_filter.
func (g Guard) program() ([]byte, error) {
	raw, err := bpf.Assemble(g.instructions())
	if err != nil {
		return nil, fmt.Errorf("addresses %v: %w", g.Addresses, err)
	}

	var program []byte
	for _, i := range raw {
		program = binary.NativeEndian.AppendUint16(program, i.Op)
		program = append(program, i.Jt, i.Jf)
		program = binary.NativeEndian.AppendUint32(program, i.K)
	}
	return program, nil
}
