package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
)

const tcp, udp, sctp = 6, 17, 132

var (
	selectors  = []string{"", "app=a", "app=b", "app in (a,b)", "app!=a", "!role", "role=db", "app=none"}
	namespaces = []string{"x", "y", "z"}
	portNames  = []string{"web", "dns"}
	blockTexts = []string{
		"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/28", "10.1.0.3/32", "192.0.2.0/24",
		"255.255.255.0/24", "::/0", "fd00::/16", "fd00:1::/64", "fd00:1::3/128", "ffff::/16",
	}
)

// dice makes clusters.
type dice struct{ *rand.Rand }

func pick[T any](d dice, all []T) T { return all[d.IntN(len(all))] }

func (d dice) cluster() policy.Cluster {
	c := policy.Cluster{Namespaces: map[string]labels.Set{
		"x": {"team": "one"},
		"y": {"team": "two"},
		"z": {"team": "one", "role": "db"},
	}}
	for i := range 4 + d.IntN(12) {
		c.Pods = append(c.Pods, d.pod(i))
	}
	for i := range d.IntN(9) {
		c.Policies = append(c.Policies, d.policy(i))
	}
	return c
}

func (d dice) pod(i int) *policy.Pod {
	p := &policy.Pod{
		Namespace: pick(d, namespaces),
		Name:      fmt.Sprint("pod", i),
		Labels:    labels.Set{"app": pick(d, []string{"a", "b", "c"})},
		Local:     d.IntN(3) > 0,
		Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}),
			netip.MustParseAddr(fmt.Sprintf("fd00:1::%x", i)),
		},
	}
	if d.IntN(2) == 0 {
		p.Labels["role"] = "db"
	}
	for range d.IntN(3) {
		p.Ports = append(p.Ports, policy.NamedPort{
			Name: pick(d, portNames), Protocol: pick(d, []uint8{tcp, udp}), Number: uint16(80 + d.IntN(4)),
		})
	}
	p.Unknown = p.Local && d.IntN(10) == 0
	return p
}

func (d dice) policy(i int) *policy.Policy {
	p := &policy.Policy{
		Namespace: pick(d, namespaces),
		Name:      fmt.Sprint("policy", i),
		Pods:      selector(pick(d, selectors)),
		Isolates:  pick(d, [][2]bool{{true, false}, {false, true}, {true, true}}),
	}
	for _, direction := range policy.Directions {
		for range d.IntN(3) {
			p.Rules[direction] = append(p.Rules[direction], d.rule())
		}
	}
	return p
}

func (d dice) rule() (r policy.Rule) {
	for range d.IntN(3) {
		r.Peers = append(r.Peers, d.peer())
	}
	for range d.IntN(3) {
		r.Ports = append(r.Ports, d.port())
	}
	return r
}

func (d dice) peer() (p policy.Peer) {
	if d.IntN(2) == 0 {
		p.Block = netip.MustParsePrefix(pick(d, blockTexts))
		for range d.IntN(3) {
			x := netip.MustParsePrefix(pick(d, blockTexts))
			if p.Block.Overlaps(x) && x.Bits() > p.Block.Bits() {
				p.Except = append(p.Except, x)
			}
		}
		return p
	}
	p.Pods = selector(pick(d, selectors))
	if d.IntN(2) == 0 {
		p.Namespaces = selector(pick(d, []string{"", "team=one", "role=db", "team=none"}))
	}
	return p
}

func (d dice) port() policy.Port {
	p := policy.Port{Protocol: pick(d, []uint8{tcp, udp, sctp}), First: uint16(80 + d.IntN(4))}
	switch d.IntN(4) {
	case 0:
		return policy.AnyPort(p.Protocol)
	case 1:
		p.Last = p.First + uint16(d.IntN(3))
	case 2:
		return policy.Port{Protocol: p.Protocol, Name: pick(d, portNames)}
	default:
		p.Last = p.First
	}
	return p
}

func (d dice) flow(c policy.Cluster) flow {
	others := []string{"10.1.0.200", "192.0.2.7", "255.255.255.255", "203.0.113.1", "0.0.0.0"}
	address := func() netip.Addr {
		if d.IntN(3) == 0 {
			return netip.MustParseAddr(pick(d, others))
		}
		return pick(d, c.Pods).Addresses[0]
	}
	f := flow{from: address(), to: address(), protocol: pick(d, []uint8{tcp, udp, sctp, 1})}
	if f.protocol != 1 {
		f.port = uint16(79 + d.IntN(8))
	}
	if d.IntN(2) == 0 {
		f.from, f.to = pick(d, c.Pods).Addresses[1], pick(d, c.Pods).Addresses[1]
	}
	return f
}

// One compiler sees one state after the other, as netd's does.
func TestWhatIsCompiledAllowsWhatThePoliciesSay(t *testing.T) {
	for seed := range uint64(60) {
		d := dice{rand.New(rand.NewPCG(seed, 1))}
		compiler := policy.NewCompiler()
		c := d.cluster()
		for round := range 12 {
			s := compiler.Compile(c)
			checkDisjoint(t, s)
			for range 150 {
				f := d.flow(c)
				want, got := reference{c}.allows(f), kernel{s}.allows(f)
				if want != got {
					t.Fatalf("seed %d, round %d: %+v is allowed: %v, want %v", seed, round, f, got, want)
				}
			}

			// Something changes.
			next := d.cluster()
			switch d.IntN(3) {
			case 0:
				c.Policies = next.Policies
			case 1:
				c.Pods = next.Pods
			default:
				c.Policies = append(slices.Clone(c.Policies), d.policy(100+round))
			}
		}
	}
}

// checkDisjoint looks for what the kernel would refuse.
func checkDisjoint(t *testing.T, s *policy.State) {
	t.Helper()
	for _, p := range s.Profiles {
		for i := 1; i < len(p.Blocks); i++ {
			if !p.Blocks[i-1].Last.Less(p.Blocks[i].First) {
				t.Errorf("intervals %v and %v", p.Blocks[i-1], p.Blocks[i])
			}
		}
		for _, ports := range p.Peers {
			spans := ports.Spans()
			for i := 1; i < len(spans); i++ {
				if spans[i-1].Protocol == spans[i].Protocol && spans[i-1].Last >= spans[i].First {
					t.Errorf("ranges %v and %v", spans[i-1], spans[i])
				}
			}
		}
	}
}

func sameAddress(a, b netip.Addr) bool { return a == b }

func TestNumbersStayWhereNothingChanges(t *testing.T) {
	d := dice{rand.New(rand.NewPCG(7, 7))}
	c := d.cluster()
	c.Policies = append(c.Policies, &policy.Policy{
		Namespace: "x", Name: "deny", Pods: labels.Everything(), Isolates: [2]bool{true, true},
	})
	compiler := policy.NewCompiler()
	first := compiler.Compile(c)

	// Neither an order nor a policy elsewhere makes a difference.
	slices.Reverse(c.Policies)
	again := compiler.Compile(c)
	if diff := cmp.Diff(first, again, cmp.Comparer(sameAddress)); diff != "" {
		t.Error(diff)
	}
}

func TestAPolicyThatIsTooMuchIsNamedAndCostsNobodyElse(t *testing.T) {
	c := policy.Cluster{Namespaces: map[string]labels.Set{"good": {}, "evil": {}}}
	for i := range 100 {
		c.Pods = append(c.Pods, &policy.Pod{
			Namespace: []string{"good", "evil"}[i%2],
			Name:      fmt.Sprint("p", i),
			Labels:    labels.Set{"i": fmt.Sprint(i)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})},
			Local:     true,
		})
	}

	evil := &policy.Policy{Namespace: "evil", Name: "huge", Pods: labels.Everything(), Isolates: [2]bool{true}}
	var ports []policy.Port
	for i := range 2000 {
		ports = append(ports, policy.Port{Protocol: tcp, First: uint16(2 * i), Last: uint16(2 * i)})
	}
	for i := range 100 {
		peer := policy.Peer{Pods: selector(fmt.Sprint("i=", i)), Namespaces: labels.Everything()}
		evil.Rules[0] = append(evil.Rules[0], policy.Rule{Peers: []policy.Peer{peer}, Ports: ports})
	}
	good := &policy.Policy{Namespace: "good", Name: "web", Pods: labels.Everything(), Isolates: [2]bool{true}}
	good.Rules[0] = []policy.Rule{{Ports: []policy.Port{{Protocol: tcp, First: 80, Last: 80}}}}
	c.Policies = []*policy.Policy{evil, good}

	s := policy.NewCompiler().Compile(c)
	if len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "evil/huge") {
		t.Errorf("problems %q", s.Problems)
	}
	from := netip.MustParseAddr("192.0.2.1")
	for i, p := range c.Pods {
		f := flow{from: from, to: p.Addresses[0], protocol: tcp, port: 80}
		if want := i%2 == 0; (kernel{s}).allows(f) != want {
			t.Errorf("%s/%s: allowed is not %v", p.Namespace, p.Name, want)
		}
	}
}
