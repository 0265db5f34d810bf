// Package portmap publishes host ports pod by pod, in the tables of upstream's portmap plugin and with its
// rules, so that each of the two can remove what the other one has made. A network of trivet-cni has maps
// for all its pods at once instead: package hostnat.
package portmap

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"net/netip"

	"github.com/trivet-node/trivet/cni/conntrack"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/iptables"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sysctl"
	"github.com/trivet-node/trivet/internal/undo"
)

// Backend says where the rules are.
type Backend string

// The backends.
const (
	NFTables Backend = "nftables"
	IPTables Backend = "iptables"
)

// Choose returns the backend for a configuration that names none: as upstream, whose DEL looks there alone,
// iptables where that can be used.
func Choose() Backend {
	if iptables.Usable(iptables.IPv4, nat) == nil {
		return IPTables
	}
	return NFTables
}

// Config is what is the same for all pods of a network.
type Config struct {
	Network string
	Backend Backend
	// SNAT makes host ports work through 127.0.0.1 and from the pod itself.
	SNAT bool
	// MasqueradeAll has pods see the host's address in all that comes by a host port.
	MasqueradeAll bool
	// MarkBit is the bit of the packet mark by which the iptables backend finds what to masquerade.
	MarkBit int
	// SetMarkChain is a chain of somebody else that sets a mark of its own instead; "" for none.
	SetMarkChain string
	// Conditions4 and Conditions6 are matches of the backend that a packet to a host port has to meet.
	Conditions4 []string
	Conditions6 []string
}

// conditions returns those of a family.
func (c Config) conditions(is6 bool) []string {
	if is6 {
		return c.Conditions6
	}
	return c.Conditions4
}

// Pod is the host ports of one attachment.
type Pod struct {
	Config
	Owner ipam.Owner
	// Ports lead to the pod's addresses, one of each family at most.
	Ports []hostnat.Port
	// Subnets are the pod's addresses with the prefix length of their subnet.
	Subnets []netip.Prefix
}

// ofFamily returns the ports of a family, and the pod's address with its subnet; ok is false without ports.
func (p Pod) ofFamily(is6 bool) (ports []hostnat.Port, own netip.Prefix, ok bool) {
	for _, port := range p.Ports {
		if port.Pod.Addr().Is6() == is6 {
			ports = append(ports, port)
		}
	}
	if len(ports) == 0 {
		return nil, own, false
	}

	pod := ports[0].Pod.Addr()
	own = netip.PrefixFrom(pod, pod.BitLen())
	for _, s := range p.Subnets {
		if s.Addr() == pod {
			own = s
		}
	}

	return ports, own, true
}

// Publish writes the rules. After an error it leaves none of them; those that the container had before stay,
// where the backend can tell them apart: in iptables a network has one chain for a container.
func (p Pod) Publish() (err error) {
	before, err := handlesOf(p.Owner.ContainerID)
	if err != nil {
		return err
	}

	var back undo.Stack
	defer back.Unwind(context.Background(), &err)
	back.Push("withdraw host ports", func(context.Context) error {
		if p.Backend == IPTables {
			return withdrawIPTables(p.Network, p.Owner.ContainerID)
		}
		return withdrawNFTables(p.Owner.ContainerID, before)
	})

	if err := p.Write(); err != nil {
		return err
	}
	if err := forgetUDP(p.Ports); err != nil || !p.SNAT {
		return err
	}
	return p.routeLoopback()
}

// Write writes the rules and does nothing else.
func (p Pod) Write() error {
	if p.Backend == IPTables {
		return p.publishIPTables()
	}
	return p.publishNFTables()
}

// Withdraw removes the rules of a container from both backends, and the tracked connections to the UDP ports
// that they translate. None is success.
func Withdraw(network, container string) error {
	return errors.Join(withdrawNFTables(container, nil), withdrawIPTables(network, container))
}

// Keep removes the rules of all containers of a network that are not valid: CNI's GC. Of those in nftables
// it finds the ones that this package has written; upstream's do not say which network they are of.
func Keep(network string, valid []ipam.Owner) error {
	keep := map[string]bool{}
	for _, o := range valid {
		keep[o.ContainerID] = true
	}
	return errors.Join(keepNFTables(network, keep), keepIPTables(network, keep))
}

// forgetUDP deletes the tracked connections to those of some host ports that are of UDP.
func forgetUDP(ports []hostnat.Port) error {
	var udp []conntrack.Port
	for _, p := range ports {
		if p.Protocol != "udp" {
			continue
		}
		udp = append(udp, conntrack.Port{
			Is6:     p.Pod.Addr().Is6(),
			Address: p.HostIP,
			Number:  p.HostPort,
		})
	}

	return forget(udp)
}

func forget(udp []conntrack.Port) error {
	if len(udp) == 0 {
		return nil
	}

	conn, err := netlink.Open(netlink.Netfilter)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return conntrack.ForgetUDP(conn, udp)
}

// routeLoopback lets packets from 127.0.0.1 leave by the interface that leads to the pod.
func (p Pod) routeLoopback() error {
	_, own, ok := p.ofFamily(false)
	if !ok {
		return nil
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	index, err := host.InterfaceTo(own.Addr())
	if err != nil {
		// Nothing leads to the pod; for upstream that is not an error either.
		return nil
	}

	link, err := host.LinkByIndex(index)
	if err != nil {
		return err
	}

	return sysctl.EnsureIfPresent("net/ipv4/conf/"+link.Name+"/route_localnet", "1")
}

// hashOf returns the first digits of the hash by which upstream's plugins name things.
func hashOf(text string, digits int) string {
	sum := sha512.Sum512([]byte(text))
	return hex.EncodeToString(sum[:])[:digits]
}
