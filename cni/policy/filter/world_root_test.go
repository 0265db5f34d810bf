package filter_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/filter"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// node is a network namespace with a bridge, pods on it, and a neighbour beyond a router's wire.
type node struct {
	t       *testing.T
	netns   string
	filter  *filter.Filter
	bridge  filter.Bridge
	pods    []*pod
	outside *pod
}

// pod is a network namespace that answers on some ports, with TCP and UDP.
type pod struct {
	netns string
	v4    netip.Addr
	v6    netip.Addr
}

var answered = []int{80, 81, 82}

func newNode(t *testing.T, pods int) *node {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "nft", "nftables")
	n := &node{t: t, netns: testenv.Netns(t), filter: filter.New("test")}
	n.in(n.netns, `sysctl -qw net.ipv6.conf.default.accept_dad=0; ip link set lo up
		ip link add br0 address 0a:58:00:00:00:01 type bridge
		ip addr add 10.1.0.1/24 dev br0
		ip addr add fd00:1::1/64 dev br0 nodad
		ip link set br0 up
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1`)

	n.bridge.MAC = net.HardwareAddr{0x0a, 0x58, 0, 0, 0, 1}
	for _, text := range []string{"10.1.0.0/24", "fd00:1::/64"} {
		n.bridge.Subnets = append(n.bridge.Subnets, netip.MustParsePrefix(text))
	}

	for i := range pods {
		n.pods = append(n.pods, n.newPod(fmt.Sprint("veth", i), "master br0", "10.1.0", "fd00:1::", 10+i))
	}

	n.outside = n.newPod("out", "", "192.0.2", "fd00:2::", 7)
	n.in(n.netns, `ip addr add 192.0.2.1/24 dev out; ip addr add fd00:2::1/64 dev out nodad`)

	// Neighbours have to find each other first.
	for _, p := range append(n.pods, n.outside) {
		for range 20 {
			if n.reaches(n.netns, "tcp", p.v6, 80, false) &&
				n.reaches(p.netns, "tcp", n.pods[0].v6, 80, false) {
				break
			}
		}
	}
	return n
}

// newPod attaches a pod as trivet-cni does with hostRouted.
func (n *node) newPod(veth, host, net4, net6 string, i int) *pod {
	n.t.Helper()
	p := &pod{
		netns: testenv.Netns(n.t),
		v4:    netip.MustParseAddr(fmt.Sprintf("%s.%d", net4, i)),
		v6:    netip.MustParseAddr(fmt.Sprintf("%s%x", net6, i)),
	}
	n.in(n.netns, fmt.Sprintf(`ip link add %s type veth peer name eth0 netns %s
		ip link set %s %s up`, veth, p.netns, veth, host))
	n.in(p.netns, fmt.Sprintf(`ip link set lo up
		sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv6.conf.eth0.accept_dad=0
		ip addr add %s/32 dev eth0; ip addr add %s/128 dev eth0 nodad
		ip link set eth0 up
		sysctl -qw net.ipv4.conf.eth0.accept_redirects=0 net.ipv6.conf.eth0.accept_redirects=0
		ip route add %s.1 dev eth0; ip route add default via %s.1
		ip -6 route add %s1 dev eth0; ip -6 route add default via %s1`,
		p.v4, p.v6, net4, net4, net6, net6))
	n.serve(p)
	return p
}

// in runs a shell script in a network namespace.
func (n *node) in(netns, script string) string {
	n.t.Helper()
	var out []byte
	err := namespace.Do(func() (err error) {
		out, err = exec.Command("sh", "-ec", script).CombinedOutput()
		return err
	}, netns)
	if err != nil {
		n.t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// serve echoes in a pod until the test ends.
func (n *node) serve(p *pod) {
	n.t.Helper()
	err := namespace.Do(func() error {
		for _, port := range answered {
			l, err := net.Listen("tcp", fmt.Sprint(":", port))
			if err != nil {
				return err
			}
			packets, err := net.ListenPacket("udp", fmt.Sprint(":", port))
			if err != nil {
				return err
			}
			n.t.Cleanup(func() { _, _ = l.Close(), packets.Close() })
			go echoStreams(l)
			go echoPackets(packets)
		}
		return nil
	}, p.netns)
	if err != nil {
		n.t.Fatal(err)
	}
}

func echoStreams(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
	}
}

func echoPackets(c net.PacketConn) {
	buffer := make([]byte, 2048)
	for {
		size, from, err := c.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buffer[:size], from)
	}
}

// patience is how long an answer may take: what is dropped takes it all.
const patience = 200 * time.Millisecond

// dial connects from a namespace, and asks for an echo.
func dial(netns, network string, to netip.Addr, port int, limit time.Duration) (conn net.Conn, err error) {
	err = namespace.Do(func() error {
		conn, err = net.DialTimeout(network, netip.AddrPortFrom(to, uint16(port)).String(), limit)
		return err
	}, netns)
	if err == nil {
		if err = echo(conn, limit); err != nil {
			_ = conn.Close()
		}
	}
	return conn, err
}

func echo(conn net.Conn, limit time.Duration) error {
	_ = conn.SetDeadline(time.Now().Add(limit))
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	return err
}

// reaches reports whether an echo comes. One that should come is asked for again, with more patience: on a
// busy machine it may take longer.
func (n *node) reaches(netns, network string, to netip.Addr, port int, should bool) bool {
	limit := patience
	for range 8 {
		conn, err := dial(netns, network, to, port, limit)
		if err == nil {
			_ = conn.Close()
			return true
		}
		if !should {
			break
		}
		limit *= 2
	}
	return false
}

// apply compiles and writes.
func (n *node) apply(c *policy.Compiler, in policy.Cluster) bool {
	n.t.Helper()
	return n.write(c.Compile(in))
}

func (n *node) write(s *policy.State) (changed bool) {
	n.t.Helper()
	err := namespace.Do(func() (err error) {
		changed, err = n.filter.Apply(s, n.bridge)
		return err
	}, n.netns)
	if err != nil {
		n.t.Fatal(err)
	}
	return changed
}

var counted = regexp.MustCompile(`packets \d+ bytes \d+`)

// ruleset is what nft(8) lists, without what was counted.
func (n *node) ruleset() string {
	n.t.Helper()
	return counted.ReplaceAllString(strings.TrimSpace(n.in(n.netns, "nft list ruleset")), "")
}
