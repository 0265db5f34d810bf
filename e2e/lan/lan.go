// Package lan is the network between the machines of a cluster: a bridge in a network namespace of its own, and one veth pair to each
// machine's namespace. Nothing is made in the host's namespace, so nothing can be left there. Namespaces are named by their files
// (/proc/PID/ns/net or a pin).
package lan

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/namespace"
)

// bridge is the switch's name in its namespace, uplink the name of a machine's card in its own.
const (
	bridge = "lan0"
	uplink = "eth0"
)

// Switch makes the bridge in the namespace, gives it the address and brings loopback up. Repeating it is harmless.
func Switch(netns string, address netip.Prefix) error {
	err := namespace.Do(func() error {
		if err := up("lo"); err != nil {
			return err
		}
		err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("create bridge %s: %w", bridge, err)
		}
		return configure(bridge, address)
	}, netns)
	if err != nil {
		return fmt.Errorf("switch in %s: %w", netns, err)
	}
	return nil
}

// Attach joins the machine's namespace to the switch by a port (a name of at most 15 characters, unique on the switch), with the
// address on eth0, a default route through gateway and forwarding on. Repeating it is harmless.
func Attach(switchNS, netns, port string, address netip.Prefix, gateway netip.Addr) error {
	if err := addPort(switchNS, netns, port); err != nil {
		return fmt.Errorf("attach %s to the LAN: %w", port, err)
	}
	err := namespace.Do(func() error {
		if err := up("lo"); err != nil {
			return err
		}
		if err := configure(uplink, address); err != nil {
			return err
		}
		if err := forward(); err != nil {
			return err
		}
		return route(netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway)
	}, netns)
	if err != nil {
		return fmt.Errorf("set up %s in %s: %w", uplink, netns, err)
	}
	return nil
}

// addPort creates the pair with one end in each namespace at once; a port whose machine is gone went with its other end.
func addPort(switchNS, netns, port string) error {
	peer, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer peer.Close()
	return namespace.Do(func() error {
		br, err := netlink.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("bridge %s: %w", bridge, err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = port, br.Attrs().Index
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: uplink, PeerNamespace: netlink.NsFd(peer.Fd())}
		if err := netlink.LinkAdd(pair); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("create veth %s: %w", port, err)
		}
		return up(port)
	}, switchNS)
}

// SetPort connects or disconnects a machine, as pulling its cable does.
func SetPort(switchNS, port string, connected bool) error {
	return namespace.Do(func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return fmt.Errorf("port %s of the LAN: %w", port, err)
		}
		if connected {
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	}, switchNS)
}

// Route sends what is for the network through the gateway, replacing an older route to it.
func Route(netns string, to netip.Prefix, gateway netip.Addr) error {
	return namespace.Do(func() error { return route(to, gateway) }, netns)
}

func route(to netip.Prefix, gateway netip.Addr) error {
	_, dst, err := parse(to)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{Dst: dst.IPNet, Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("route %s via %s: %w", to, gateway, err)
	}
	return nil
}

func configure(name string, address netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	addr, _, err := parse(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("address %s on %s: %w", address, name, err)
	}
	return netlink.LinkSetUp(link)
}

func parse(p netip.Prefix) (host, network *netlink.Addr, err error) {
	if host, err = netlink.ParseAddr(p.String()); err != nil {
		return nil, nil, fmt.Errorf("address %s: %w", p, err)
	}
	network, err = netlink.ParseAddr(p.Masked().String())
	return host, network, err
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}

// forward lets the kernel route in the thread's network namespace. /proc/sys/net always shows the namespace of the thread that opens it.
func forward() error {
	for _, f := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		err := os.WriteFile(filepath.Join("/proc/sys/net", f), []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
