// Package lan wires machines together: one of them, the switch, holds a bridge in its network namespace, the
// others are connected to it by a veth pair each. All of it ends with the machines' network namespaces; the
// host's own network is never touched.
package lan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const bridge = "lan0"

// Switch makes the bridge in the network namespace of process pid and gives it the gateway addresses of the
// LAN, one of each family.
func Switch(pid int, gateways ...netip.Prefix) error {
	return in(pid, func(h *netlink.Handle) error {
		if err := up(h, "lo"); err != nil {
			return err
		}

		link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
		if err := h.LinkAdd(link); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("create bridge %s: %w", bridge, err)
		}
		if err := addresses(h, bridge, gateways); err != nil {
			return err
		}

		return up(h, bridge)
	})
}

// Plug connects the machine of process pid to the switch: its eth0 gets the addresses and a default route
// to each of the gateways. The port on the switch is named after the machine.
func Plug(switchPid, pid int, port string, addrs []netip.Prefix, gateways []netip.Addr) error {
	err := in(switchPid, func(h *netlink.Handle) error {
		old, err := h.LinkByName(port)
		if err == nil {
			if leadsTo(pid, old) {
				return nil
			}

			// The machine was halted: the kernel takes its network away some time after its last process.
			if err := h.LinkDel(old); err != nil && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("unplug the halted machine from port %s: %w", port, err)
			}
		}

		return connect(h, port, pid)
	})
	if err != nil {
		return err
	}

	return in(pid, func(h *netlink.Handle) error {
		if err := errors.Join(up(h, "lo"), addresses(h, "eth0", addrs), up(h, "eth0")); err != nil {
			return err
		}

		for _, g := range gateways {
			err := ignoreExists(h.RouteReplace(&netlink.Route{Gw: net.IP(g.AsSlice())}))
			if err != nil {
				return fmt.Errorf("default route to %s: %w", g, err)
			}
		}

		return nil
	})
}

// leadsTo reports whether the other end of the port is the eth0 of the machine of process pid.
func leadsTo(pid int, port netlink.Link) bool {
	err := in(pid, func(h *netlink.Handle) error {
		eth0, err := h.LinkByName("eth0")
		if err == nil && eth0.Attrs().ParentIndex != port.Attrs().Index {
			err = errors.New("eth0 has another peer")
		}
		return err
	})
	return err == nil
}

// connect lays a veth pair from the bridge to the machine of process pid.
func connect(h *netlink.Handle, port string, pid int) error {
	master, err := h.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", bridge, err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: master.Attrs().Index},
		PeerName: "eth0", PeerNamespace: netlink.NsPid(pid)}
	if err := h.LinkAdd(veth); err != nil {
		return fmt.Errorf("create veth %s: %w", port, err)
	}
	return up(h, port)
}

// Cut takes the port of a machine down; Mend brings it up again.
func Cut(switchPid int, port string) error {
	return in(switchPid, func(h *netlink.Handle) error {
		link, err := h.LinkByName(port)
		if err != nil {
			return fmt.Errorf("port %s: %w", port, err)
		}
		return h.LinkSetDown(link)
	})
}

// Mend is the opposite of Cut.
func Mend(switchPid int, port string) error {
	return in(switchPid, func(h *netlink.Handle) error { return up(h, port) })
}

// Route makes the machine of process pid reach a network through another address of the LAN.
func Route(pid int, to netip.Prefix, via netip.Addr) error {
	return in(pid, func(h *netlink.Handle) error {
		dst := &net.IPNet{IP: net.IP(to.Addr().AsSlice()), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}
		if err := h.RouteReplace(&netlink.Route{Dst: dst, Gw: net.IP(via.AsSlice())}); err != nil {
			return fmt.Errorf("route to %s via %s: %w", to, via, err)
		}
		return nil
	})
}

func in(pid int, f func(*netlink.Handle) error) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

func up(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return h.LinkSetUp(link)
}

// addresses gives them to a link. Nobody else can have them on the LAN, so the kernel need not ask.
func addresses(h *netlink.Handle, name string, all []netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}

	for _, p := range all {
		ip := &net.IPNet{IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
		err := ignoreExists(h.AddrAdd(link, &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD}))
		if err != nil {
			return fmt.Errorf("address %s of %s: %w", p, name, err)
		}
	}

	return nil
}

func ignoreExists(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}
