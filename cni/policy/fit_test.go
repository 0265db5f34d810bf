package policy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/policytest"
)

// elementsOf counts addresses and the ends of intervals.
func elementsOf(s *policy.State) (n int) {
	for _, p := range s.Profiles {
		n += len(p.Peers) + 2*len(p.Blocks)
	}
	return n
}

// addProfiles adds pods to a namespace, and a policy for each.
func addProfiles(c *policy.Cluster, namespace string, n int, r policy.Rule) {
	for i := range n {
		pod := podOf(namespace, 10_000+len(c.Pods))
		pod.Labels = labels.Set{"i": fmt.Sprint(i)}
		c.Pods = append(c.Pods, pod)

		p := isolating(namespace, i, r)
		p.Pods = policytest.Selector(fmt.Sprint("i=", i))
		c.Policies = append(c.Policies, p)
	}
}

// A transaction that the kernel refuses would leave all policies of the node as they were.
func TestWhatIsTooMuchForANodeIsThatOfTheLargestNamespaces(t *testing.T) {
	var names []string
	for i := range 8 {
		names = append(names, fmt.Sprint("ns", i))
	}
	c := clusterOf(names...)
	for i := range 4500 {
		pod := podOf("elsewhere", 100+i)
		pod.Local = false
		c.Pods = append(c.Pods, pod)
	}
	c.Namespaces["elsewhere"] = labels.Set{}

	// Each has some 9,000 addresses for each profile: 8 for most, and more for the first and the last one.
	for n, name := range names {
		profiles := 8
		if n%7 == 0 {
			profiles = 19
		}
		addProfiles(&c, name, profiles, policy.Rule{Peers: []policy.Peer{everyPod}})
	}

	s := policy.NewCompiler().Compile(c)
	all := strings.Join(s.Problems, " ")
	if len(s.Problems) != 2*19 || !strings.Contains(all, " ns0/") || !strings.Contains(all, " ns7/") {
		t.Errorf("%d policies are refused: %.300s", len(s.Problems), all)
	}
	if n := elementsOf(s); n > 600_000 || n < 400_000 {
		t.Errorf("%d elements", n)
	}
}

// An interval is two elements, and what is allowed takes a set and chains.
func TestIntervalsAndPortsCount(t *testing.T) {
	c := clusterOf("intervals", "ports")
	// The blocks are the same, so that they are made once.
	var peers []policy.Peer
	for n := range 1100 {
		peers = append(peers, blockOf(2*n))
	}
	addProfiles(&c, "intervals", 100, policy.Rule{Peers: peers})

	for i := range 2 {
		p := isolating("ports", i)
		for n := range 1400 {
			n += 1400 * i
			p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], policy.Rule{
				Peers: []policy.Peer{blockOf(2 * n)},
				Ports: []policy.Port{{Protocol: tcp, First: uint16(n), Last: uint16(n)}},
			})
		}
		c.Policies = append(c.Policies, p)
	}

	s := policy.NewCompiler().Compile(c)
	if len(s.Problems) != 102 || elementsOf(s) != 0 {
		t.Errorf("%d policies are refused, and there are %d elements", len(s.Problems), elementsOf(s))
	}
}

func TestAPolicyThatCannotBeAffordedIsolatesAllPods(t *testing.T) {
	c := clusterOf("evil")
	var values []string
	for i := range 2500 {
		values = append(values, fmt.Sprint("v", i))
	}
	selector := policytest.Selector(fmt.Sprintf("app in (%s)", strings.Join(values, ",")))
	for i := range 1000 {
		p := isolating("evil", i, policy.Rule{})
		p.Pods = selector
		c.Policies = append(c.Policies, p)
	}

	s := policy.NewCompiler().Compile(c)
	profile := s.Profiles[s.Numbers[policy.Ingress][c.Pods[0].Addresses[0]]]
	if len(s.Problems) == 0 || profile == nil || profile.Any != "" {
		t.Errorf("%d policies are refused, and the pod has %+v", len(s.Problems), profile)
	}
}

// needy returns a cluster of namespaces, of which each has policies of an effort of 35,000.
func needy(policies map[string]int) policy.Cluster {
	c := clusterOf(slices.Sorted(maps.Keys(policies))...)
	for i := range 5000 {
		c.Namespaces[fmt.Sprint("other", i)] = labels.Set{}
	}

	// Such a selector finds nothing.
	for namespace, n := range policies {
		for i := range n {
			selector := policytest.Selector(fmt.Sprintf("x%d,!y,!z", i))
			peers := []policy.Peer{{Pods: labels.Everything(), Namespaces: selector}}
			c.Policies = append(c.Policies, isolating(namespace, i, policy.Rule{Peers: peers}))
		}
	}
	return c
}

// Many namespaces that each need all that one may have would keep the daemon busy for minutes.
func TestEffortIsBoundedForANode(t *testing.T) {
	policies := map[string]int{"small": 2}
	for i := range 30 {
		policies[fmt.Sprint("evil", i)] = 60
	}

	s := policy.NewCompiler().Compile(needy(policies))
	all := strings.Join(s.Problems, "\n")
	if strings.Contains(all, "small/") {
		t.Errorf("a namespace that needs less than an equal part: %.300s", all)
	}
	if len(s.Problems) < 30*40 || !strings.Contains(all, "more than an equal part") {
		t.Errorf("%d policies are refused: %.300s", len(s.Problems), all)
	}
}

func TestWhatNamespacesLeaveOfTheEffortIsForThoseThatNeedMore(t *testing.T) {
	policies := map[string]int{"large": 20}
	for i := range 100 {
		policies[fmt.Sprint("small", i)] = 2
	}
	if s := policy.NewCompiler().Compile(needy(policies)); len(s.Problems) > 0 {
		t.Errorf("%d policies are refused: %.300q", len(s.Problems), s.Problems)
	}
}
