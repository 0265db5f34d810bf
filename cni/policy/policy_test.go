package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/policytest"
)

const tcp = 6

// One compiler sees one state after the other, as netd's does.
func TestWhatIsCompiledAllowsWhatThePoliciesSay(t *testing.T) {
	for seed := range uint64(60) {
		d := policytest.NewDice(seed)
		compiler := policy.NewCompiler()
		c := d.Cluster()
		for round := range 12 {
			s := compiler.Compile(c)
			checkDisjoint(t, s)
			for range 150 {
				f := d.Flow(c)
				want, got := policytest.Reference{Cluster: c}.Allows(f), kernel{s}.allows(f)
				if want != got {
					t.Fatalf("seed %d, round %d: %+v is allowed: %v, want %v", seed, round, f, got, want)
				}
			}

			// Something changes.
			next := d.Cluster()
			switch d.IntN(3) {
			case 0:
				c.Policies = next.Policies
			case 1:
				c.Pods = next.Pods
			default:
				c.Policies = append(slices.Clone(c.Policies), d.Policy(100+round))
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
	d := policytest.NewDice(7)
	c := d.Cluster()
	c.Policies = append(c.Policies, &policy.Policy{
		Namespace: "x",
		Name:      "deny",
		Pods:      labels.Everything(),
		Isolates:  [2]bool{true, true},
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

	evil := &policy.Policy{
		Namespace: "evil",
		Name:      "huge",
		Pods:      labels.Everything(),
		Isolates:  [2]bool{true},
	}
	var ports []policy.Port
	for i := range 2000 {
		ports = append(ports, policy.Port{Protocol: tcp, First: uint16(2 * i), Last: uint16(2 * i)})
	}
	for i := range 100 {
		peer := policy.Peer{Pods: policytest.Selector(fmt.Sprint("i=", i)), Namespaces: labels.Everything()}
		evil.Rules[0] = append(evil.Rules[0], policy.Rule{Peers: []policy.Peer{peer}, Ports: ports})
	}
	good := &policy.Policy{
		Namespace: "good",
		Name:      "web",
		Pods:      labels.Everything(),
		Isolates:  [2]bool{true},
	}
	good.Rules[0] = []policy.Rule{{Ports: []policy.Port{{Protocol: tcp, First: 80, Last: 80}}}}
	c.Policies = []*policy.Policy{evil, good}

	s := policy.NewCompiler().Compile(c)
	if len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "evil/huge") {
		t.Errorf("problems %q", s.Problems)
	}
	from := netip.MustParseAddr("192.0.2.1")
	for i, p := range c.Pods {
		f := policytest.Flow{
			From:     from,
			To:       p.Addresses[0],
			Protocol: tcp,
			Port:     80,
		}
		if want := i%2 == 0; (kernel{s}).allows(f) != want {
			t.Errorf("%s/%s: allowed is not %v", p.Namespace, p.Name, want)
		}
	}
}

func TestANamespaceThatLeadsToTooManyAddressesIsNamed(t *testing.T) {
	c := policy.Cluster{Namespaces: map[string]labels.Set{"good": {}, "evil": {}}}
	for i := range 3000 {
		c.Pods = append(c.Pods, &policy.Pod{
			Namespace: []string{"good", "evil"}[i%2],
			Name:      fmt.Sprint("p", i),
			Labels:    labels.Set{"i": fmt.Sprint(i)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})},
			Local:     i < 300,
		})
	}

	all := policy.Rule{Peers: []policy.Peer{{Pods: labels.Everything(), Namespaces: labels.Everything()}}}
	for i := range 300 {
		p := &policy.Policy{
			Namespace: []string{"good", "evil"}[i%2],
			Name:      fmt.Sprint("n", i),
			Pods:      policytest.Selector(fmt.Sprint("i=", i)),
			Isolates:  [2]bool{true},
		}
		if i%2 == 1 || i == 0 {
			p.Rules[0] = []policy.Rule{all}
		}
		c.Policies = append(c.Policies, p)
	}

	s := policy.NewCompiler().Compile(c)
	elements := 0
	for _, p := range s.Profiles {
		elements += len(p.Peers)
	}
	if len(s.Problems) != 150 || elements != 3000 {
		t.Errorf("%d policies are refused, and there are %d elements", len(s.Problems), elements)
	}
}

// kernel judges flows as the rules of the node do, by the sets of a State.
type kernel struct{ *policy.State }

func (k kernel) allows(f policytest.Flow) bool {
	return f.From == f.To || k.allowsIn(policy.Egress, f.From, f.To, f) &&
		k.allowsIn(policy.Ingress, f.To, f.From, f)
}

func (k kernel) allowsIn(d policy.Direction, self, peer netip.Addr, f policytest.Flow) bool {
	number, isolated := k.Numbers[d][self]
	if !isolated {
		return true
	}

	p := k.Profiles[number]
	if p.Any.Have(f.Protocol, f.Port) || p.Peers[peer].Have(f.Protocol, f.Port) {
		return true
	}
	return slices.ContainsFunc(p.Blocks, func(i policy.Interval) bool {
		return i.First.BitLen() == peer.BitLen() && !peer.Less(i.First) && !i.Last.Less(peer) &&
			i.Ports.Have(f.Protocol, f.Port)
	})
}
