package filter_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/filter"
	"github.com/trivet-node/trivet/internal/namespace"
)

const tcp, udp = 6, 17

// cluster has the node's pods, by number, in a namespace ns.
func (n *node) cluster(policies ...*policy.Policy) policy.Cluster {
	c := policy.Cluster{Policies: policies, Namespaces: map[string]labels.Set{"ns": {}}}
	for i, p := range n.pods {
		c.Pods = append(c.Pods, &policy.Pod{
			Namespace: "ns",
			Name:      fmt.Sprint("pod", i),
			Labels:    labels.Set{"pod": fmt.Sprint(i)},
			Addresses: []netip.Addr{p.v4, p.v6},
			Local:     true,
		})
	}
	return c
}

func only(pod int) labels.Selector { return labels.SelectorFromSet(labels.Set{"pod": fmt.Sprint(pod)}) }

// isolate returns a policy for one pod and direction.
func isolate(pod int, d policy.Direction, rules ...policy.Rule) *policy.Policy {
	p := &policy.Policy{Namespace: "ns", Name: fmt.Sprint(d, pod), Pods: only(pod)}
	p.Isolates[d] = true
	p.Rules[d] = rules
	return p
}

// expect is which of the node's neighbours a pod answers.
func (n *node) expect(what string, to *pod, network string, port int, want string) {
	n.t.Helper()
	for family, address := range map[string]netip.Addr{"IPv4": to.v4, "IPv6": to.v6} {
		got := ""
		reaches := func(netns, name string) bool {
			return n.reaches(netns, network, address, port, strings.Contains(want, name))
		}
		for i, from := range n.pods {
			if name := fmt.Sprint(i); from != to && reaches(from.netns, name) {
				got += name
			}
		}
		if n.outside != to && reaches(n.outside.netns, "o") {
			got += "o"
		}
		if reaches(n.netns, "n") {
			got += "n"
		}
		if got != want {
			n.t.Errorf("%s: %s %s port %d answers %q, want %q", what, family, network, port, got, want)
		}
	}
}

func TestPoliciesDecideWhoReachesWhom(t *testing.T) {
	n := newNode(t, 3)
	compiler := policy.NewCompiler()
	n.expect("without policies", n.pods[0], "tcp", 80, "12on")

	n.apply(compiler, n.cluster(isolate(0, policy.Ingress)))
	n.expect("default deny", n.pods[0], "tcp", 80, "n")
	n.expect("default deny", n.pods[0], "udp", 80, "n")
	n.expect("default deny", n.pods[1], "tcp", 80, "02on")

	n.apply(compiler, n.cluster(isolate(0, policy.Ingress, policy.Rule{
		Peers: []policy.Peer{{Pods: only(1)}},
		Ports: []policy.Port{{Protocol: tcp, First: 80, Last: 80}, {Protocol: udp, First: 81, Last: 82}},
	})))
	n.expect("one pod", n.pods[0], "tcp", 80, "1n")
	n.expect("one pod", n.pods[0], "tcp", 81, "n")
	n.expect("one pod", n.pods[0], "udp", 82, "1n")
	n.expect("one pod", n.pods[0], "udp", 80, "n")

	block := policy.Peer{Block: netip.MustParsePrefix("0.0.0.0/0")}
	block.Except = []netip.Prefix{netip.MustParsePrefix("10.1.0.11/32")}
	block6 := policy.Peer{Block: netip.MustParsePrefix("::/0")}
	block6.Except = []netip.Prefix{netip.MustParsePrefix("fd00:1::b/128")}
	rule := policy.Rule{Peers: []policy.Peer{block, block6}}
	n.apply(compiler, n.cluster(isolate(0, policy.Ingress, rule)))
	n.expect("all but one", n.pods[0], "tcp", 80, "2on")

	to2 := policy.Rule{Peers: []policy.Peer{{Pods: only(2)}}}
	n.apply(compiler, n.cluster(isolate(1, policy.Egress, to2)))
	n.expect("egress of 1", n.pods[0], "tcp", 80, "2on")
	n.expect("egress of 1", n.pods[2], "udp", 81, "01on")
	n.expect("egress of 1", n.outside, "tcp", 80, "02n")

	n.apply(compiler, n.cluster())
	if left := n.ruleset(); left != "" {
		t.Errorf("the last policy has gone, and there is %s", left)
	}
}

func TestWhatIsEstablishedStaysOverAnUpdate(t *testing.T) {
	n := newNode(t, 2)
	compiler := policy.NewCompiler()
	allow := policy.Rule{Peers: []policy.Peer{{Pods: only(1)}}}
	n.apply(compiler, n.cluster(isolate(0, policy.Ingress, allow)))
	stream, err := dial(n.pods[1].netns, "tcp", n.pods[0].v4, 80, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()

	n.apply(compiler, n.cluster(isolate(0, policy.Ingress), isolate(1, policy.Egress)))
	if n.reaches(n.pods[1].netns, "tcp", n.pods[0].v4, 80, false) {
		t.Error("a new connection is allowed")
	}
	for range 3 {
		if err := echo(stream, time.Minute); err != nil {
			t.Errorf("the old connection: %v", err)
		}
	}

	dropped := [2]uint64{}
	err = namespace.Do(func() (err error) { dropped, err = n.filter.Dropped(); return err }, n.netns)
	if err != nil || dropped[policy.Egress] == 0 {
		t.Errorf("dropped %v, %v", dropped, err)
	}
}

func TestAnUpdateWritesOnlyWhatDiffers(t *testing.T) {
	n := newNode(t, 1)
	compiler := policy.NewCompiler()
	in := n.cluster(isolate(0, policy.Ingress))
	if !n.apply(compiler, in) || n.apply(compiler, in) {
		t.Error("the same is written twice")
	}

	before := n.ruleset()
	n.in(n.netns, "nft flush ruleset")
	n.filter.Forget()
	n.apply(compiler, in)
	if after := n.ruleset(); !strings.Contains(before, "table bridge") || after != before {
		t.Errorf("after a flush there is %s\nbefore there was %s", after, before)
	}

	// Another process, after kill -9 of this one, knows nothing of it.
	n.filter = filter.New("test")
	n.apply(policy.NewCompiler(), in)
	if after := n.ruleset(); after != before {
		t.Errorf("a second process writes %s", after)
	}
}

// With CAP_NET_RAW a pod can also write another source.
func TestAPodSendsFromItsOwnAddressesOnly(t *testing.T) {
	n := newNode(t, 3)
	packets := n.listen(n.pods[0])

	// Only pod 2 may send to pod 0. Pod 1 takes its addresses.
	allow := policy.Rule{Peers: []policy.Peer{{Pods: only(2)}}}
	const take = "ip addr add %s/32 dev lo; ip addr add %s/128 dev lo nodad"
	n.in(n.pods[1].netns, fmt.Sprintf(take, n.pods[2].v4, n.pods[2].v6))
	v4 := func(p *pod) netip.Addr { return p.v4 }
	v6 := func(p *pod) netip.Addr { return p.v6 }
	mark := byte(0)
	arrives := func(family func(*pod) netip.Addr, limit time.Duration) bool {
		from, to := family(n.pods[2]), family(n.pods[0])
		mark++
		_ = namespace.Do(func() error {
			source := net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
			conn, err := net.DialUDP("udp", source, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 99)))
			if err != nil {
				return err
			}
			_, err = conn.Write([]byte{mark})
			return errors.Join(err, conn.Close())
		}, n.pods[1].netns)
		return comes(packets, mark, limit)
	}

	compiler := policy.NewCompiler()
	n.apply(compiler, n.cluster(isolate(0, policy.Ingress, allow)))
	if !arrives(v4, time.Minute) || !arrives(v6, time.Minute) {
		t.Fatal("the packets that the test sends do not arrive without the rule either")
	}

	n.own()
	n.apply(compiler, n.cluster(isolate(0, policy.Ingress, allow)))
	if arrives(v4, patience) || arrives(v6, patience) {
		t.Error("pod 1 sends in the name of pod 2")
	}
	n.expect("pod 2 itself", n.pods[0], "tcp", 80, "2n")
}

// With CAP_NET_RAW a pod can send frames past the gateway.
func TestFramesToANeighbourPassTheRulesToo(t *testing.T) {
	n := newNode(t, 2)
	const direct = "ip route replace %s dev eth0; ip -6 route replace %s dev eth0"
	n.in(n.pods[1].netns, fmt.Sprintf(direct, n.pods[0].v4, n.pods[0].v6))
	n.expect("a neighbour on the bridge", n.pods[0], "tcp", 80, "1on")

	allow := policy.Rule{
		Peers: []policy.Peer{{Pods: only(1)}},
		Ports: []policy.Port{{Protocol: tcp, First: 80, Last: 80}},
	}
	n.apply(policy.NewCompiler(), n.cluster(isolate(0, policy.Ingress, allow)))
	n.expect("a neighbour on the bridge", n.pods[0], "tcp", 80, "1n")
	n.expect("a neighbour on the bridge", n.pods[0], "tcp", 81, "n")
	n.expect("a neighbour on the bridge", n.pods[0], "udp", 80, "n")
}
