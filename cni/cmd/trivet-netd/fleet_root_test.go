package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// fleet is several nodes, each in a network namespace with a daemon of its own, on two networks with a router
// between them. They share an API server.
type fleet struct {
	t      *testing.T
	router string
	api    *api
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "ip", "iproute2")
	f := &fleet{t: t, router: testenv.Netns(t), api: newAPI(t)}
	w := world{t: t}
	for _, net := range []int{1, 2} {
		w.in(f.router, "sh", "-ec", fmt.Sprintf(`ip link add lan%[1]d type bridge
			ip addr add 192.0.%[1]d.254/24 dev lan%[1]d
			ip -6 addr add fd99:%[1]d::fe/64 dev lan%[1]d nodad
			ip link set lan%[1]d mtu 1400 up
			echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding`, net))
	}
	return f
}

// node is number i on a network: its addresses end with i, and its pods are those of putPods.
func (f *fleet) node(network, i int) *world {
	f.t.Helper()
	w := newNode(f.t, f.api)
	w.name = fmt.Sprintf("n%d", i)
	w.more = []string{"--cluster-cidr=10.244.0.0/16,fd00:244::/56"}
	w.write("good", 0o600, "")
	w.in(f.router, "sh", "-ec", fmt.Sprintf(`ip link add port%[2]d mtu 1400 master lan%[1]d type veth \
			peer name eth0 mtu 1400 netns %[3]s; ip link set port%[2]d up`, network, i, w.node))
	w.in(w.node, "sh", "-ec", fmt.Sprintf(`ip link set lo up; ip link set eth0 up
		ip addr add 192.0.%[1]d.%[2]d/24 dev eth0; ip -6 addr add fd99:%[1]d::%[2]d/64 dev eth0 nodad
		ip route add default via 192.0.%[1]d.254; ip -6 route add default via fd99:%[1]d::fe
		ip link add trivet0 address 02:00:00:00:00:0%[2]d type bridge; ip link set trivet0 up`, network, i))
	w.serve("127.0.0.1:0")
	return w
}

// put stores the Node of number i on a network.
func (f *fleet) put(network, i int) {
	cidrs := []string{fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:244:0:%d::/64", i)}
	f.api.put(fmt.Sprintf("n%d", i), cidrs, []string{
		fmt.Sprintf("192.0.%d.%d", network, i),
		fmt.Sprintf("fd99:%d::%d", network, i),
	})
}

// pod is a namespace on the bridge of a node, with an address of both families.
type pod struct {
	t     *testing.T
	netns string
	v4    netip.Addr
	v6    netip.Addr
}

func (w *world) pod(cidr int, mtu int) pod {
	w.t.Helper()
	p := pod{
		t:     w.t,
		netns: testenv.Netns(w.t),
		v4:    netip.MustParseAddr(fmt.Sprintf("10.244.%d.9", cidr)),
		v6:    netip.MustParseAddr(fmt.Sprintf("fd00:244:0:%d::9", cidr)),
	}
	w.in(w.node, "sh", "-ec", fmt.Sprintf(`ip link add pod%[1]d master trivet0 mtu %[2]d type veth \
		peer name eth0 mtu %[2]d netns %[3]s; ip link set pod%[1]d up`, cidr, mtu, p.netns))
	w.in(p.netns, "sh", "-ec", fmt.Sprintf(`ip link set lo up; ip link set eth0 up
		ip addr add %[1]s/24 dev eth0; ip -6 addr add %[2]s/64 dev eth0 nodad
		ip route add default via 10.244.%[3]d.1; ip -6 route add default via fd00:244:0:%[3]d::1`,
		p.v4, p.v6, cidr))
	return p
}

// send sends a datagram of a size, in one piece, from a namespace to a pod, and returns the address that the
// pod has seen; invalid if nothing arrives within a second.
func (p pod) send(from string, to netip.Addr, size int) (source netip.Addr, err error) {
	p.t.Helper()
	var server net.PacketConn
	err = namespace.Do(func() (err error) {
		server, err = net.ListenPacket("udp", netip.AddrPortFrom(to, 7).String())
		return err
	}, p.netns)
	if err != nil {
		return source, err
	}
	defer func() { _ = server.Close() }()

	err = namespace.Do(func() error {
		client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 7)))
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()

		raw, err := client.SyscallConn()
		if err != nil {
			return err
		}
		var failed error
		err = raw.Control(func(fd uintptr) { failed = neverFragment(int(fd), to) })
		if err = errors.Join(err, failed); err != nil {
			return err
		}
		_, err = client.Write([]byte(strings.Repeat("x", size)))
		return err
	}, from)
	if err != nil {
		return source, err
	}

	_ = server.SetReadDeadline(time.Now().Add(time.Second))
	buffer := make([]byte, size+1)
	n, peer, err := server.ReadFrom(buffer)
	if err != nil || n != size {
		return source, fmt.Errorf("%d bytes, %w", n, err)
	}
	return netip.MustParseAddrPort(peer.String()).Addr().Unmap(), nil
}

// neverFragment makes a packet that is too large an error: of IPv4 by the flag "don't fragment".
func neverFragment(fd int, to netip.Addr) error {
	if to.Is4() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
}

// arrives waits until a datagram from a namespace arrives.
func (p pod) arrives(w *world, from string, to netip.Addr, size int) (source netip.Addr) {
	p.t.Helper()
	w.await(fmt.Sprintf("%d bytes arrive at %s", size, to), func() bool {
		var err error
		source, err = p.send(from, to, size)
		return err == nil
	})
	return source
}
