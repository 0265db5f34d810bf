package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/policytest"
)

// everyPod is a peer.
var everyPod = policy.Peer{Pods: labels.Everything(), Namespaces: labels.Everything()}

// isolating returns a policy for all pods of a namespace, with rules for ingress.
func isolating(namespace string, i int, rules ...policy.Rule) *policy.Policy {
	return &policy.Policy{
		Namespace: namespace,
		Name:      fmt.Sprint("policy", i),
		Pods:      labels.Everything(),
		Isolates:  [2]bool{policy.Ingress: true},
		Rules:     [2][]policy.Rule{policy.Ingress: rules},
	}
}

// podOf returns a local pod; i gives it its addresses.
func podOf(namespace string, i int) *policy.Pod {
	return &policy.Pod{
		Namespace: namespace,
		Name:      fmt.Sprint("pod", i),
		Local:     true,
		Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}),
		},
	}
}

// clusterOf returns one of namespaces with a local pod each, the first of which has the first address.
func clusterOf(namespaces ...string) (c policy.Cluster) {
	c.Namespaces = map[string]labels.Set{}
	for i, name := range namespaces {
		c.Namespaces[name] = labels.Set{}
		c.Pods = append(c.Pods, podOf(name, i))
	}
	return c
}

// blockOf returns a peer of one address.
func blockOf(i int) policy.Peer {
	a := netip.AddrFrom4([4]byte{192, byte(i >> 16), byte(i >> 8), byte(i)})
	return policy.Peer{Block: netip.PrefixFrom(a, 32)}
}

func tcpPorts(n int) (all []policy.Port) {
	for i := range n {
		all = append(all, policy.Port{Protocol: tcp, First: uint16(2 * i), Last: uint16(2 * i)})
	}
	return all
}

// profiles returns what the pods of a namespace have, by address.
func profiles(c policy.Cluster, s *policy.State, namespace string) map[string]*policy.Profile {
	all := map[string]*policy.Profile{}
	for _, pod := range c.Pods {
		for _, d := range policy.Directions {
			for _, a := range pod.Addresses {
				if n := s.Numbers[d][a]; pod.Namespace == namespace && n != 0 {
					all[fmt.Sprint(d, a)] = s.Profiles[n]
				}
			}
		}
	}
	return all
}

func TestANamespaceIsCompiledAsIfItWereAlone(t *testing.T) {
	for seed := range uint64(200) {
		c := policytest.NewDice(seed).Cluster()
		together := policy.NewCompiler().Compile(c)
		for namespace := range c.Namespaces {
			alone := c
			alone.Policies = nil
			for _, p := range c.Policies {
				if p.Namespace == namespace {
					alone.Policies = append(alone.Policies, p)
				}
			}

			want := profiles(c, policy.NewCompiler().Compile(alone), namespace)
			got := profiles(c, together, namespace)
			if diff := cmp.Diff(want, got, cmp.Comparer(sameAddress)); diff != "" {
				t.Errorf("seed %d, namespace %s (-alone +together):\n%s", seed, namespace, diff)
			}
		}
	}
}

func TestBlocksOfOthersWithinABlockCostItNothing(t *testing.T) {
	c := clusterOf("good", "evil")
	everywhere := policy.Peer{Block: netip.MustParsePrefix("0.0.0.0/0")}
	good := isolating("good", 0, policy.Rule{Peers: []policy.Peer{everywhere}, Ports: tcpPorts(10)})
	c.Policies = append(c.Policies, good)
	for i := range 2 {
		evil := isolating("evil", i)
		for n := range 1500 {
			rule := policy.Rule{Peers: []policy.Peer{blockOf(2 * (1500*i + n))}}
			evil.Rules[policy.Ingress] = append(evil.Rules[policy.Ingress], rule)
		}
		c.Policies = append(c.Policies, evil)
	}

	s := policy.NewCompiler().Compile(c)
	if len(s.Problems) > 0 {
		t.Errorf("problems %.300q", s.Problems)
	}
	p := s.Profiles[s.Numbers[policy.Ingress][c.Pods[0].Addresses[0]]]
	if len(p.Blocks) != 1 || len(p.Blocks[0].Ports.Spans()) != 10 {
		t.Errorf("%d intervals, the first with %d ports", len(p.Blocks), len(p.Blocks[0].Ports.Spans()))
	}
}

// A cluster may be large, and its policies are in force.
func TestManyRulesForAllOfManyPodsAreGranted(t *testing.T) {
	c := clusterOf("ns", "other")
	for i := range 10_000 {
		pod := podOf([]string{"ns", "other"}[i%2], 2+i)
		pod.Local = false
		pod.Labels = labels.Set{"i": fmt.Sprint(i)}
		pod.Ports = []policy.NamedPort{{Name: "web", Protocol: tcp, Number: uint16(8000 + i%500)}}
		c.Pods = append(c.Pods, pod)
	}

	p := isolating("ns", 0)
	p.Isolates[policy.Egress] = true
	for i := range 50 {
		own := policy.Port{Protocol: tcp, First: uint16(1000 + i), Last: uint16(1000 + i)}
		ports := append(tcpPorts(10), own)
		p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], policy.Rule{
			Peers: []policy.Peer{everyPod},
			Ports: ports,
		})
		p.Rules[policy.Egress] = append(p.Rules[policy.Egress], policy.Rule{
			Peers: []policy.Peer{everyPod},
			Ports: append(ports, policy.Port{Protocol: tcp, Name: "web"}),
		})
	}
	c.Policies = []*policy.Policy{p}

	s := policy.NewCompiler().Compile(c)
	if len(s.Problems) > 0 || len(s.Profiles) != 2 {
		t.Fatalf("problems %.300q, %d profiles", s.Problems, len(s.Profiles))
	}
	for _, p := range s.Profiles {
		if len(p.Peers) != 20_004 {
			t.Errorf("%s with %d addresses", p.Direction, len(p.Peers))
		}
	}
}

func TestBlocksOfANamespaceAreBounded(t *testing.T) {
	c := clusterOf("good", "evil")
	c.Policies = append(c.Policies, isolating("good", 0, policy.Rule{Peers: []policy.Peer{blockOf(1)}}))
	for i := range 100 {
		evil := isolating("evil", i)
		var peers []policy.Peer
		for n := range 2999 {
			peers = append(peers, blockOf(2*(2999*i+n)))
		}
		evil.Rules[policy.Ingress] = []policy.Rule{{Peers: peers}}
		c.Policies = append(c.Policies, evil)
	}

	s := policy.NewCompiler().Compile(c)
	evil := s.Profiles[s.Numbers[policy.Ingress][c.Pods[1].Addresses[0]]]
	if len(s.Problems) != 100-16 || len(evil.Blocks) != 16*2999 {
		t.Errorf("%d policies are refused, and there are %d intervals", len(s.Problems), len(evil.Blocks))
	}
	all := strings.Join(s.Problems, " ")
	if strings.Contains(all, "good/") || !strings.Contains(all, "blocks") {
		t.Errorf("problems %.200q", s.Problems)
	}
}

// Selectors that find nothing are looked for in all namespaces and pods.
func TestSelectorsThatFindNothingAreNotFree(t *testing.T) {
	c := clusterOf("evil")
	for i := range 5000 {
		c.Namespaces[fmt.Sprint("ns", i)] = labels.Set{}
	}
	for i := range 1000 {
		selector := policytest.Selector(fmt.Sprintf("x%d,!y,!z", i))
		peers := []policy.Peer{{Pods: labels.Everything(), Namespaces: selector}}
		c.Policies = append(c.Policies, isolating("evil", i, policy.Rule{Peers: peers}))
	}
	if s := policy.NewCompiler().Compile(c); len(s.Problems) < 800 {
		t.Errorf("%d of 1,000 policies are refused", len(s.Problems))
	}
}
