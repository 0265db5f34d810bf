package filter_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/internal/namespace"
)

// own gives the bridge's ports their pods' addresses.
func (n *node) own() {
	n.bridge.Ports = map[string][]netip.Addr{}
	for i, p := range n.pods {
		n.bridge.Ports[fmt.Sprint("veth", i)] = []netip.Addr{p.v4, p.v6}
	}
}

// bridging is whether br_netfilter calls the host's rules for what is bridged, and so which subnets are left
// to the rules for frames.
var bridging = map[string][]netip.Prefix{
	"0": {netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/64")},
	"1": nil,
}

func (n *node) setBridging(called string, subnets []netip.Prefix) {
	n.in(n.netns, fmt.Sprintf(`cd /proc/sys/net/bridge 2>/dev/null || exit 0
		echo %s > bridge-nf-call-iptables; echo %[1]s > bridge-nf-call-ip6tables`, called))
	n.bridge.Subnets = subnets
}

// link is the interface of a pod.
func (n *node) link(p *pod) (link *net.Interface) {
	n.t.Helper()
	err := namespace.Do(func() (err error) { link, err = net.InterfaceByName("eth0"); return err }, p.netns)
	if err != nil {
		n.t.Fatal(err)
	}
	return link
}

// linkLocal is the address of a pod's interface that nobody gave it.
func (n *node) linkLocal(p *pod) netip.Addr {
	n.t.Helper()
	fields := strings.Fields(n.in(p.netns, "ip -6 -o addr show dev eth0 scope link"))
	for _, f := range fields {
		if a, err := netip.ParsePrefix(f); err == nil {
			return a.Addr()
		}
	}
	n.t.Fatalf("no link-local address in %q", fields)
	return netip.Addr{}
}

func TestLinkLocalAddressesLeadToNoNeighbour(t *testing.T) {
	n := newNode(t, 2)
	n.own()
	neighbour := n.linkLocal(n.pods[0]).WithZone(fmt.Sprint(n.link(n.pods[1]).Index))
	reaches := func() bool {
		return n.reaches(n.pods[1].netns, "tcp", neighbour, 80, false) ||
			n.reaches(n.pods[1].netns, "udp", neighbour, 80, false)
	}

	n4 := bridging["0"][:1]
	for _, c := range []struct {
		called  string
		subnets []netip.Prefix
	}{{"0", bridging["0"]}, {"0", n4}, {"1", nil}} {
		n.apply(policy.NewCompiler(), n.cluster())
		n.setBridging(c.called, c.subnets)
		n.await("a neighbour without policies", reaches)

		n.apply(policy.NewCompiler(), n.cluster(isolate(0, policy.Ingress)))
		if reaches() {
			t.Errorf("br_netfilter %s, subnets %v: %s is reached", c.called, c.subnets, neighbour)
		}
		n.expect("the node", n.pods[0], "tcp", 80, "n")

		// Another plugin has attached both.
		n.bridge.Ports, n.bridge.Others = nil, []string{"veth0", "veth1"}
		n.apply(policy.NewCompiler(), n.cluster(isolate(0, policy.Ingress)))
		if reaches() {
			t.Errorf("br_netfilter %s, subnets %v: %s is reached unrecorded", c.called, c.subnets, neighbour)
		}
		n.own()
		n.bridge.Others = nil
	}
}

// await tries again what may take a moment.
func (n *node) await(what string, holds func() bool) {
	n.t.Helper()
	for range 30 {
		if holds() {
			return
		}
	}
	n.t.Errorf("%s: not reached", what)
}

// frame returns one with a UDP packet for port 99 that holds one byte, behind tags of VLAN 0.
func frame(to, from net.HardwareAddr, destination, source netip.Addr, tags int, mark byte) []byte {
	b := append(append([]byte{}, to...), from...)
	for range tags {
		b = append(b, 0x81, 0, 0, 0)
	}
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)

	ip := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, udp, 0, 0}
	ip = append(append(ip, source.AsSlice()...), destination.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	return append(append(b, ip...), 0x30, 0x39, 0, 99, 0, 9, 0, 0, mark)
}

// send sends a raw frame from a pod, which takes CAP_NET_RAW.
func (n *node) send(from *pod, data []byte) {
	n.t.Helper()
	link := n.link(from)
	err := namespace.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Sendto(fd, data, 0, &unix.SockaddrLinklayer{Ifindex: link.Index})
		return errors.Join(err, unix.Close(fd))
	}, from.netns)
	if err != nil {
		n.t.Fatal(err)
	}
}

func TestFramesWithTagsReachNoNeighbour(t *testing.T) {
	n := newNode(t, 2)
	n.own()
	to, from := n.pods[0], n.pods[1]
	packets := n.listen(to)
	mark := byte(0)
	arrives := func(tags int) bool {
		mark++
		n.send(from, frame(n.link(to).HardwareAddr, n.link(from).HardwareAddr, to.v4, from.v4, tags, mark))
		return comes(packets, mark, patience)
	}

	for called, subnets := range bridging {
		n.setBridging(called, subnets)
		for tags := range 3 {
			n.apply(policy.NewCompiler(), n.cluster())
			n.await(fmt.Sprint("a frame with tags: ", tags), func() bool { return arrives(tags) })
			n.apply(policy.NewCompiler(), n.cluster(isolate(0, policy.Ingress)))
			if arrives(tags) {
				t.Errorf("br_netfilter %s: a frame with %d tags arrives", called, tags)
			}
		}
		n.apply(policy.NewCompiler(), n.cluster(isolate(0, policy.Ingress, policy.Rule{})))
		n.await("a frame that is allowed", func() bool { return arrives(0) })
	}
}

// listen takes the packets for port 99 of a pod.
func (n *node) listen(p *pod) (packets net.PacketConn) {
	n.t.Helper()
	err := namespace.Do(func() (err error) {
		packets, err = net.ListenPacket("udp", ":99")
		return err
	}, p.netns)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = packets.Close() })
	return packets
}

// comes reports whether the packet with that byte comes in time. One that was sent before it, and is late on
// a busy machine, is not taken for it.
func comes(packets net.PacketConn, mark byte, limit time.Duration) bool {
	_ = packets.SetReadDeadline(time.Now().Add(limit))
	buffer := make([]byte, 1)
	for {
		if _, _, err := packets.ReadFrom(buffer); err != nil {
			return false
		}
		if buffer[0] == mark {
			return true
		}
	}
}
