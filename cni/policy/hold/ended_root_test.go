package hold_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// wire puts a pod of record 9, and a peer, behind the node, which forwards what is established.
func (n *node) wire() (pod, peer string) {
	n.t.Helper()
	testenv.Program(n.t, "nft", "nftables")
	pod, peer = testenv.Netns(n.t), testenv.Netns(n.t)
	n.run(n.netns, fmt.Sprintf(`ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward
		ip link add topod type veth peer name eth0 netns %s; ip link set topod up
		ip link add topeer type veth peer name eth0 netns %s; ip link set topeer up
		ip addr add 10.0.0.1/32 dev topod; ip route add 10.0.0.9 dev topod
		ip addr add 10.0.2.1/24 dev topeer
		nft add table inet test
		nft add chain inet test nat '{ type nat hook prerouting priority -100; }'
		nft add rule inet test nat ip daddr 10.96.0.1 dnat ip to 10.0.0.9
		nft add chain inet test forward '{ type filter hook forward priority 1; }'
		nft add rule inet test forward ct state established accept`, pod, peer))
	n.run(pod, `ip link set eth0 up; ip addr add 10.0.0.9/32 dev eth0
		ip route add 10.0.0.1 dev eth0; ip route add default via 10.0.0.1`)
	n.run(peer, `ip link set eth0 up; ip addr add 10.0.2.2/24 dev eth0; ip route add default via 10.0.2.1`)
	return pod, peer
}

func (n *node) run(netns, script string) {
	n.t.Helper()
	err := namespace.Do(func() error {
		out, err := exec.Command("sh", "-ec", script).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}, netns)
	if err != nil {
		n.t.Fatal(err)
	}
}

// flow sends packets of one UDP connection, and tells which arrive.
type flow struct {
	from, to *net.UDPConn
	sent     *byte // what the last packet held
}

func (n *node) flow(from, to, address string, port int) (f flow) {
	n.t.Helper()
	f.sent = new(byte)
	listen := func() (err error) {
		f.to, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
		return err
	}
	dial := func() (err error) {
		f.from, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(address), Port: port})
		return err
	}
	if err := namespace.Do(listen, to); err != nil {
		n.t.Fatal(err)
	}
	if err := namespace.Do(dial, from); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _, _ = f.to.Close(), f.from.Close() })

	// It is established when there was an answer.
	if !f.passes(true) {
		n.t.Fatalf("%s port %d is not reached", address, port)
	}
	return f
}

// passes reports whether a packet arrives, and one in answer. Those that should have more time: on a busy
// machine they may take longer.
func (f flow) passes(should bool) bool {
	limit := 50 * time.Millisecond
	for range 10 {
		*f.sent++
		_, _ = f.from.Write([]byte{*f.sent})
		if to := heard(f.to, *f.sent, limit); to != nil {
			_, _ = f.to.WriteTo([]byte{*f.sent}, to)
			heard(f.from, *f.sent, limit)
			return true
		}
		if should {
			limit *= 2
		}
	}
	return false
}

// heard waits for the packet with that byte, and returns who sent it; nil if it does not come. One that was
// sent before it, and is late, is not taken for it.
func heard(c *net.UDPConn, mark byte, limit time.Duration) net.Addr {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	buffer := make([]byte, 1)
	for {
		_, from, err := c.ReadFrom(buffer)
		if err != nil {
			return nil
		}
		if buffer[0] == mark {
			return from
		}
	}
}

func TestAPodDoesNotInheritTheConnectionsOfItsAddress(t *testing.T) {
	for _, c := range []struct {
		name     string
		policies map[string]bool
		clear    bool
		stays    bool
	}{
		{name: "plugin", policies: map[string]bool{"closed": true}},
		{name: "daemon", policies: map[string]bool{"closed": true}, clear: true},
		{name: "no policies", stays: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			pod, peer := n.wire()
			former, next := record(9, "open"), record(9, "open")
			next.Owner.ContainerID = "next"
			n.do(func() error { return n.Announce(c.policies) })
			n.begin(former)
			flows := []flow{
				n.flow(peer, pod, "10.0.0.9", 1001),
				n.flow(peer, pod, "10.96.0.1", 1002),
				n.flow(pod, peer, "10.0.2.2", 1003),
			}
			n.run(n.netns, "nft add rule inet test forward drop")
			n.expectFlows(flows, true)

			n.do(func() error { return n.End(former.Owner) })
			if c.clear {
				n.do(n.Clear)
			}
			n.begin(next)
			n.expectFlows(flows, c.stays)
			if left, _ := os.ReadDir(n.dir + "/test/.policy/ended"); len(left) > 0 {
				t.Errorf("left are %v", left)
			}
		})
	}
}

func (n *node) expectFlows(flows []flow, want bool) {
	n.t.Helper()
	for i, f := range flows {
		if f.passes(want) != want {
			n.t.Errorf("flow %d passes: %v, want %v", i, !want, want)
		}
	}
}

// What is cleared late is not the next pod's.
func TestConnectionsOfTheNextPodStay(t *testing.T) {
	n := newNode(t)
	pod, peer := n.wire()
	n.do(func() error { return n.Announce(map[string]bool{"closed": true}) })
	n.begin(record(9, "open"))
	n.do(func() error { return n.End(record(9, "open").Owner) })
	n.begin(record(9, "open"))
	flows := []flow{n.flow(peer, pod, "10.0.0.9", 1001)}
	n.run(n.netns, "nft add rule inet test forward drop")
	n.do(n.Clear)
	n.expectFlows(flows, true)
}

func TestPodsEndOnAFullDisk(t *testing.T) {
	n := newNode(t)
	pod, peer := n.wire()
	n.do(func() error { return n.Announce(map[string]bool{"closed": true}) })
	n.begin(record(9, "open"))
	flows := []flow{n.flow(peer, pod, "10.0.0.9", 1001)}
	n.run(n.netns, "nft add rule inet test forward drop")

	// A file in place of the directory.
	if err := os.WriteFile(n.dir+"/test/.policy/ended", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.do(func() error { return n.End(record(9, "open").Owner) })
	n.expectFlows(flows, false)
	if all, err := n.Records(); len(all) > 0 || err != nil {
		t.Errorf("on record are %v, %v", all, err)
	}
}
