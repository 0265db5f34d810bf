package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/namespace"
)

// udp4 and udp6 are what IP and UDP add to a datagram.
const (
	udp4 = 28
	udp6 = 48
)

// tunnels returns what a node's tunnels are made of, as ip(8) and bridge(8) show it.
func (w *world) tunnels() string {
	w.t.Helper()
	return w.in(w.node, "sh", "-c", `for i in 4 6; do
		ip link show trivet-vxlan$i >&- 2>&- || continue
		ip -d link show trivet-vxlan$i; ip addr show dev trivet-vxlan$i
		ip neigh show dev trivet-vxlan$i nud permanent; ip -6 neigh show dev trivet-vxlan$i nud permanent
		bridge fdb show dev trivet-vxlan$i; done`)
}

func TestPodsReachEachOtherOnOneNetworkAndBehindARouter(t *testing.T) {
	f := newFleet(t)
	a, b, c := f.node(1, 1), f.node(1, 2), f.node(2, 3)
	for i, w := range []*world{a, b, c} {
		f.put(i/2+1, i+1)
		w.start()
	}
	podA, podB, podC := a.pod(1, 1350), b.pod(2, 1350), c.pod(3, 1350)

	// On one network the packets of pods travel as they are, and to the other one in tunnels of 50 bytes.
	a.awaitReport(200, "1 nodes through tunnels")
	for _, way := range []struct {
		from pod
		w    *world
		to   pod
	}{{podA, a, podB}, {podA, a, podC}, {podC, c, podA}, {podC, c, podB}} {
		for to, size := range map[netip.Addr]int{way.to.v4: 1350 - udp4, way.to.v6: 1350 - udp6} {
			source := way.to.arrives(way.w, way.from.netns, to, size)
			if source != way.from.v4 && source != way.from.v6 {
				t.Errorf("packets from %s come from %s", way.from.v4, source)
			}
		}
	}

	if got := a.ip("route get 10.244.2.9"); !strings.Contains(got, "via 192.0.1.2 dev eth0") {
		t.Errorf("to a node on the same network: %s", got)
	}
	if got := a.ip("route get 10.244.3.9"); !strings.Contains(got, "dev trivet-vxlan4") {
		t.Errorf("to a node behind the router: %s", got)
	}
	if got := a.subnets(); got != "10.244.1.0/24,fd00:244:0:1::/64 mtu 1350" {
		t.Errorf("configuration for %s", got)
	}

	// The node itself is answered through the tunnel.
	if from := podC.arrives(a, a.node, podC.v4, 100); from != netip.MustParseAddr("10.244.1.0") {
		t.Errorf("packets of node n1 come from %s", from)
	}

	podA.learnsTheMTU(a, podC)
}

// learnsTheMTU has a pod that is older than the tunnel send a packet that is too large for it. (The pod's
// route would remember the MTU of its interface, too.)
func (p pod) learnsTheMTU(w *world, to pod) {
	p.t.Helper()
	w.in(p.netns, "ip", "link", "set", "eth0", "mtu", "1400")
	w.ip("link set pod1 mtu 1400")
	w.ip("link set trivet0 mtu 1400")
	w.await("the pod is told that a packet of 1400 bytes is too large", func() bool {
		_, err := to.send(p.netns, to.v4, 1400-udp4)
		return errors.Is(err, unix.EMSGSIZE)
	})
	to.arrives(w, p.netns, to.v4, 1350-udp4)
}

func TestTunnelsFollowTheNodes(t *testing.T) {
	f := newFleet(t)
	a := f.node(1, 1)
	f.put(1, 1)
	f.put(2, 3)
	a.start()
	has := func(what string) func() bool {
		return func() bool { return strings.Contains(a.tunnels(), what) }
	}
	a.await("a forwarding entry of n3", has("dst 192.0.2.3 "))
	a.await("a route", func() bool {
		const route = "10.244.3.0/24 via 10.244.3.0 dev trivet-vxlan4 metric 1048576 onlink"
		return strings.Contains(fmt.Sprint(a.routes()), route)
	})

	// Its address changes.
	f.api.put("n3", []string{"10.244.3.0/24"}, []string{"192.0.2.33"})
	a.await("the new address", has("dst 192.0.2.33 "))
	a.await("nothing of the old address", func() bool {
		now := a.tunnels()
		return !strings.Contains(now, "192.0.2.3 ") && strings.Count(now, "PERMANENT") == 1
	})

	// Its pods change.
	f.api.put("n3", []string{"10.244.7.0/24"}, []string{"192.0.2.33"})
	a.await("the new pods", has("10.244.7.0 lladdr "))
	a.await("nothing of the old pods", func() bool {
		return !strings.Contains(a.tunnels()+fmt.Sprint(a.routes()), "10.244.3.0")
	})

	// The own pods change.
	f.api.put("n1", []string{"10.244.5.0/24"}, []string{"192.0.1.1"})
	a.await("the new source", has("inet 10.244.5.0/32 "))
	a.await("not the old one", func() bool { return !has("10.244.1.0/32")() })

	// The own address changes: the tunnel is made again.
	a.ip("addr add 192.0.1.11/24 dev eth0")
	f.api.put("n1", []string{"10.244.5.0/24"}, []string{"192.0.1.11"})
	a.await("the new end", has("local 192.0.1.11 "))
	a.await("a route again", func() bool { return strings.Contains(fmt.Sprint(a.routes()), "10.244.7.0/24") })

	// It moves to the network of this node.
	f.api.put("n3", []string{"10.244.7.0/24"}, []string{"192.0.1.3"})
	a.awaitRoutes("10.244.7.0/24 via 192.0.1.3 dev eth0 metric 117",
		"unreachable 10.244.5.0/24 metric 1073741824")
	a.await("no tunnel", func() bool { return a.tunnels() == "" })
	if got := a.in(a.node, "nft", "list", "tables"); strings.Contains(got, "tunnel_") {
		t.Errorf("left: %s", got)
	}
}

func TestTunnelsAreRepairedAndCleanedUp(t *testing.T) {
	f := newFleet(t)
	a := f.node(1, 1)
	f.put(1, 1)
	f.put(2, 3)
	f.api.put("six", []string{"10.244.6.0/24", "fd00:244:0:6::/64"}, []string{"fd99:2::6"})
	f.api.put("n1", []string{"10.244.1.0/24", "fd00:244:0:1::/64"}, []string{"192.0.1.1", "fd99:1::1"})
	a.start()
	a.awaitReport(200, "2 nodes through tunnels")
	if got := a.subnets(); got != "10.244.1.0/24,fd00:244:0:1::/64 mtu 1330" {
		t.Errorf("configuration for %s", got)
	}
	whole, guard := a.tunnels(), a.in(a.node, "nft", "list", "table", "inet", "tunnel_trivet")
	isWhole := func() bool { return sameRules(withoutIndexes(a.tunnels()), withoutIndexes(whole)) }
	for _, damage := range []string{
		"bridge fdb del $(bridge fdb show dev trivet-vxlan4 | head -1) dev trivet-vxlan4",
		"bridge fdb append 00:00:00:00:00:00 dst 192.0.2.66 dev trivet-vxlan4",
		"ip neigh flush dev trivet-vxlan4 nud permanent",
		"ip neigh replace 10.244.3.0 lladdr 02:66:66:66:66:66 nud permanent dev trivet-vxlan4",
		"ip -6 neigh flush dev trivet-vxlan6 nud permanent",
		"ip addr flush dev trivet-vxlan4", "ip link set trivet-vxlan6 down",
		"ip link set trivet-vxlan4 mtu 1500", "ip link del trivet-vxlan4",
		"nft flush ruleset", "nft flush set inet tunnel_trivet nodes4",
	} {
		a.in(a.node, "sh", "-ec", damage)
		a.await("the tunnels are whole after "+damage, func() bool {
			return isWhole() && len(a.routes()) == 6 &&
				a.in(a.node, "sh", "-c", "nft list table inet tunnel_trivet || true") == guard
		})
	}

	a.kill()
	a.api.remove("six")
	a.start()
	a.awaitReport(200, "1 nodes through tunnels")
	a.end(syscall.SIGTERM)
	cmd := a.command("--cleanup")
	cmd.SysProcAttr = nil
	if err := namespace.Do(cmd.Run, a.node); err != nil {
		t.Fatal(err)
	}
	if left := a.tunnels() + fmt.Sprint(a.routes()); left != "[]" {
		t.Errorf("left: %s", left)
	}
}

// A table of another owner cannot be replaced, which stands for any error that may pass.
func TestTunnelsStayInUseWhileTheyCannotBeGuarded(t *testing.T) {
	f := newFleet(t)
	a := f.node(1, 1)
	f.put(1, 1)
	f.put(2, 3)
	a.start()
	a.awaitReport(200, "1 nodes through tunnels")
	before := fmt.Sprint(a.routes())
	a.kill()

	owner := exec.Command("nft", "-i")
	stdin, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := namespace.Do(owner.Start, a.node); err != nil {
		t.Fatal(err)
	}
	const own = "delete table inet tunnel_trivet\nadd table inet tunnel_trivet { flags owner; }\n"
	if _, err := io.WriteString(stdin, own); err != nil {
		t.Fatal(err)
	}
	a.await("the table has another owner", func() bool {
		return strings.Contains(a.in(a.node, "nft", "list", "tables"), "tunnel_trivet") &&
			!strings.Contains(a.in(a.node, "nft", "list", "ruleset"), "nodes4")
	})

	a.start()
	a.awaitReport(503, "guard UDP port 8472")
	if now := fmt.Sprint(a.routes()); now != before {
		t.Errorf("routes are %s, and were %s", now, before)
	}
	if err := errors.Join(stdin.Close(), owner.Wait()); err != nil {
		t.Fatal(err)
	}
	a.awaitReport(200, "1 nodes through tunnels")
}

// withoutIndexes leaves out the numbers of interfaces, which a new one has another of.
func withoutIndexes(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(line, ": trivet-vxlan")
		if !ok {
			rest = line
		}
		out.WriteString(rest)
	}
	return out.String()
}
