package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/namespace"
)

// counters count datagrams that carry one byte, behind what filters them: with the network identifier of
// this program's tunnels, with that of others, and without any.
const counters = `add table inet count
	add chain inet count passed { type filter hook %s priority 10; }
	add rule inet count passed udp dport 8472 udp length 17 @th,96,24 117 counter comment "ours"
	add rule inet count passed udp dport 8472 udp length 17 @th,96,24 118 counter comment "other"
	add rule inet count passed udp dport 8472 udp length 9 counter comment "short"`

// passed returns how many datagrams a rule has counted.
func (w *world) passed(netns, rule string) (n int) {
	w.t.Helper()
	out := w.in(netns, "nft", "list", "table", "inet", "count")
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, "counter packets "); ok && strings.Contains(line, rule) {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				w.t.Fatal(err)
			}
			return n
		}
	}
	w.t.Fatalf("no rule %s in %s", rule, out)
	return 0
}

// sendVXLAN sends a byte with a network identifier, or with no header if that is 0.
func (w *world) sendVXLAN(netns, from, to string, identifier byte) {
	w.t.Helper()
	data := []byte("x")
	if identifier != 0 {
		data = append([]byte{0: 8, 6: identifier, 7: 0}, data...)
	}
	err := namespace.Do(func() error {
		source := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))
		end := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), 8472))
		client, err := net.DialUDP("udp", source, end)
		if err != nil {
			return err
		}
		_, err = client.Write(data)
		return errors.Join(err, client.Close())
	}, netns)
	if err != nil {
		w.t.Fatal(err)
	}
}

// datagrams are sent to the tunnels' port by a pod of node n1, the router, or another node.
var datagrams = []struct {
	sender, from, to string
	// at is where one is seen that the node lets pass.
	at string
}{
	// The kernel takes them at each of the node's addresses.
	{"pod", "10.244.1.9", "10.244.1.1", "node"},
	{"pod", "10.244.1.9", "10.244.1.0", "node"},
	{"pod", "10.244.1.9", "192.0.1.1", "node"},
	{"pod", "fd00:244:0:1::9", "fd00:244:0:1::1", "node"},
	{"router", "192.0.1.254", "192.0.1.1", "node"},

	// From the addresses of another node.
	{"pod", "192.0.1.2", "10.244.1.1", "node"},
	{"pod", "192.0.1.2", "192.0.1.1", "node"},
	{"pod", "fd99:1::2", "fd00:244:0:1::1", "node"},

	// To other nodes, which may have addresses that their Nodes do not name.
	{"pod", "10.244.1.9", "192.0.2.3", "router"},
	{"pod", "10.244.1.9", "192.0.2.99", "router"},
	{"pod", "192.0.1.2", "192.0.2.3", "router"},
}

func TestOnlyNodesSendIntoTunnels(t *testing.T) {
	f := newFleet(t)
	a := f.node(1, 1)
	f.put(1, 1)
	f.put(1, 2)
	f.put(2, 3)
	a.in(a.node, "sh", "-ec", `ip addr add 10.244.1.1/24 dev trivet0
		ip -6 addr add fd00:244:0:1::1/64 dev trivet0 nodad
		for i in all trivet0 eth0; do echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter; done`)
	a.start()
	a.awaitReport(200, "1 nodes through tunnels")
	p := a.pod(1, 1350)
	a.in(p.netns, "sh", "-ec", `ip addr add 192.0.1.2/32 dev eth0
		ip -6 addr add fd99:1::2/128 dev eth0 nodad`)
	a.in(a.node, "nft", fmt.Sprintf(counters, "input"))
	a.in(f.router, "nft", fmt.Sprintf(counters, "forward"))
	netns := map[string]string{"pod": p.netns, "node": a.node, "router": f.router}

	for _, d := range datagrams {
		for rule, identifier := range map[string]byte{"other": 118, "short": 0} {
			before := a.passed(netns[d.at], rule)
			a.await(fmt.Sprintf("%s: one passes (%s)", d, rule), func() bool {
				a.sendVXLAN(netns[d.sender], d.from, d.to, 117)
				a.sendVXLAN(netns[d.sender], d.from, d.to, identifier)
				return a.passed(netns[d.at], rule) > before
			})
		}
		if n := a.passed(netns[d.at], "ours"); n > 0 {
			t.Fatalf("%s: %d pass", d, n)
		}
	}

	// Those of nodes pass, even if no tunnel of this node leads to them.
	a.in(f.router, "ip", "addr", "add", "192.0.1.2/32", "dev", "lan1")
	a.await("a node's pass", func() bool {
		a.sendVXLAN(f.router, "192.0.1.2", "192.0.1.1", 117)
		return a.passed(a.node, "ours") > 0
	})
}
