package filter_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/filter"
	"github.com/trivet-node/trivet/internal/namespace"
)

// differences returns what Compare says in the node's namespace, in a process that has not written the tables
// and knows none of their numbers.
func (n *node) differences(in policy.Cluster, b filter.Bridge) (found string) {
	n.t.Helper()
	err := namespace.Do(func() error {
		all, err := filter.New("test").Compare(policy.NewCompiler().Compile(in), b)
		for _, d := range all {
			found += d.What + "\n"
		}
		return err
	}, n.netns)
	if err != nil {
		n.t.Fatal(err)
	}
	return found
}

// blocksAndPods isolates a pod, which allows some others and all but one address, and another pod.
func (n *node) blocksAndPods() policy.Cluster {
	block := policy.Peer{Block: netip.MustParsePrefix("0.0.0.0/0")}
	block.Except = []netip.Prefix{netip.MustParsePrefix("10.1.0.11/32")}
	return n.cluster(
		isolate(0, policy.Ingress, policy.Rule{
			Peers: []policy.Peer{{Pods: only(1)}, block},
			Ports: []policy.Port{{Protocol: tcp, First: 80, Last: 90}, {Protocol: udp, First: 53, Last: 53}},
		}),
		isolate(1, policy.Egress, policy.Rule{}),
	)
}

func TestCompareSaysWhatIsNotAsThePoliciesWant(t *testing.T) {
	n := newNode(t, 3)
	compiler := policy.NewCompiler()
	if found := n.differences(n.cluster(), filter.Bridge{}); found != "" {
		t.Errorf("nothing is wanted and nothing there: %s", found)
	}

	// The first ones take the first numbers.
	allow := policy.Rule{Peers: []policy.Peer{{Pods: only(0)}}, Ports: []policy.Port{policy.AnyPort(tcp)}}
	n.apply(compiler, n.cluster(isolate(2, policy.Ingress, allow), isolate(2, policy.Egress, allow)))
	n.apply(compiler, n.blocksAndPods())
	if found := n.differences(n.blocksAndPods(), n.bridge); found != "" {
		t.Errorf("what was written differs from itself: %s", found)
	}

	found := n.differences(n.cluster(isolate(0, policy.Ingress), isolate(2, policy.Egress)), n.bridge)
	for _, want := range []string{
		"element 10.1.0.10 of set ingress4 is not as it should be",
		"element 10.1.0.12 of set egress4 is missing",
		"element 10.1.0.11 of set egress4 is not wanted",
	} {
		if !strings.Contains(found, want) {
			t.Errorf("it does not say that %s: %s", want, found)
		}
	}

	found = n.differences(n.cluster(), filter.Bridge{})
	if !strings.Contains(found, "there are no policies") {
		t.Errorf("tables without policies: %q", found)
	}
}

func TestCompareSeesWhatSomebodyHasChanged(t *testing.T) {
	n := newNode(t, 2)
	n.bridge.Ports = map[string][]netip.Addr{"veth0": {n.pods[0].v4, n.pods[0].v6}}
	compiler := policy.NewCompiler()

	for _, c := range []struct{ change, want string }{
		{"flush chain inet policy_test ingress", "chain ingress is not as it should be"},
		{"add rule inet policy_test egress accept", "chain egress is not as it should be"},
		{
			"flush chain inet policy_test ingress" +
				strings.Repeat("; add rule inet policy_test ingress accept", 5),
			"chain ingress is not as it should be",
		},
		{"chain inet policy_test egress { policy drop; }", "chain egress is not as it should be"},
		{
			"flush map inet policy_test ingress4; flush map inet policy_test ingress6",
			"element fd00:1::a of set ingress6 is missing",
		},
		{"flush set inet policy_test self6", "element fd00:1::a fd00:1::a of set self6 is missing"},
		{"delete table inet policy_test", "nftables table policy_test is missing"},
		{"flush set bridge policy_test ports", "element veth0 of set ports is missing"},
		{
			"add element bridge policy_test owned4 { veth0 . 10.1.0.200 }",
			"element veth0 10.1.0.200 of set owned4 is not wanted",
		},
		{"delete chain bridge policy_test forward", "chain forward is missing"},
	} {
		n.filter.Forget()
		n.apply(compiler, n.blocksAndPods())
		n.in(n.netns, "nft '"+c.change+"'")
		if found := n.differences(n.blocksAndPods(), n.bridge); !strings.Contains(found, c.want) {
			t.Errorf("after %s it says %q, want %q", c.change, found, c.want)
		}
	}
}

func TestCompareSeesAChainThatIsCalledElsewhere(t *testing.T) {
	n := newNode(t, 2)
	compiler := policy.NewCompiler()
	for _, change := range []string{
		"s/priority filter/priority 7/",
		"s/hook forward/hook input/",
		"/type filter/d",
	} {
		n.filter.Forget()
		n.apply(compiler, n.blocksAndPods())
		n.in(n.netns, "chain=$(nft list chain inet policy_test egress | sed '"+change+"'); "+
			"nft delete chain inet policy_test egress; printf %s \"$chain\" | nft -f -")
		found := n.differences(n.blocksAndPods(), n.bridge)
		if !strings.Contains(found, "chain egress is not as it should be") {
			t.Errorf("after %s it says %q", change, found)
		}
	}
}

func TestCompareNamesTheRuleThatSomebodyHasChanged(t *testing.T) {
	n := newNode(t, 2)
	compiler := policy.NewCompiler()
	pods := "(ingress of " + n.pods[0].v4.String() + ", ingress of " + n.pods[0].v6.String() + ")"
	for _, c := range []struct {
		what   string
		chain  string
		rule   int
		change func(rule []expr.Any)
		want   string
	}{
		{"other addresses", "profile", 0, otherAddresses, "rule 1 of chain profile"},
		{"other addresses", "profile", 2, otherAddresses, "rule 3 of chain profile"},
		{"another map", "profile", 0, otherMap, "rule 1 of chain profile"},
		{"another verdict", "profile", 3, otherVerdict, "of chain profile"},
		{"another verdict", "ports", 0, otherVerdict, "rule 1 of chain ports"},
		{"the other port", "ports", 0, otherPort, "rule 1 of chain ports"},
		{"all other ports", "ports", 0, inverted, "rule 1 of chain ports"},
	} {
		n.filter.Forget()
		n.apply(compiler, n.blocksAndPods())

		// The chains of the first pod: its profile, and what that allows.
		chain := n.in(n.netns, "nft list map inet policy_test ingress4 | grep -o 'profile[0-9]*' | head -1")
		if c.chain == "ports" {
			blocks := strings.Replace(strings.TrimSpace(chain), "profile", "blocks", 1) + "_4"
			chain = n.in(n.netns, "nft list map inet policy_test "+blocks+
				" | grep -o 'ports[0-9]*' | head -1")
		}
		n.changeRule(strings.TrimSpace(chain), c.rule, c.change)

		found := n.differences(n.blocksAndPods(), n.bridge)
		isOne := strings.Count(found, "\n") == 1
		if !isOne || !strings.Contains(found, c.want) || !strings.Contains(found, pods) {
			t.Errorf("after %s in %s it says %q, want %q of %s", c.what, c.chain, found, c.want, pods)
		}
	}
}

// changeRule changes a rule of a chain. Not every nft(8) can write these rules on every kernel.
func (n *node) changeRule(chain string, index int, change func(rule []expr.Any)) {
	n.t.Helper()
	err := namespace.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}

		table := &nftables.Table{Name: "policy_test", Family: nftables.TableFamilyINet}
		rules, err := conn.GetRules(table, &nftables.Chain{Name: chain, Table: table})
		if err != nil {
			return err
		}
		if index >= len(rules) {
			return fmt.Errorf("chain %q has %d rules", chain, len(rules))
		}

		change(rules[index].Exprs)
		conn.ReplaceRule(rules[index])
		return conn.Flush()
	}, n.netns)
	if err != nil {
		n.t.Fatal(err)
	}
}

// otherAddresses has a rule look at destinations in place of sources.
func otherAddresses(rule []expr.Any) {
	for _, e := range rule {
		if p, ok := e.(*expr.Payload); ok {
			p.Offset += p.Len
		}
	}
}

func otherPort(rule []expr.Any) {
	for _, e := range rule {
		if p, ok := e.(*expr.Payload); ok {
			p.Offset -= p.Len
		}
	}
}

func otherMap(rule []expr.Any) {
	for _, e := range rule {
		if l, ok := e.(*expr.Lookup); ok {
			l.SetName, l.SetID = strings.Replace(l.SetName, "blocks", "peers", 1), 0
		}
	}
}

func inverted(rule []expr.Any) {
	for _, e := range rule {
		if l, ok := e.(*expr.Lookup); ok {
			l.Invert = true
		}
	}
}

func otherVerdict(rule []expr.Any) {
	for _, e := range rule {
		if v, ok := e.(*expr.Verdict); ok && v.Kind == expr.VerdictDrop {
			v.Kind = expr.VerdictAccept
		} else if ok {
			v.Kind = expr.VerdictDrop
		}
	}
}

// changeChain changes the chain of the first pod's ingress by a program of sed(1), with as many rules.
func (n *node) changeChain(program string) {
	n.t.Helper()
	n.in(n.netns, "chain=$(nft list map inet policy_test ingress4 | "+
		"grep -o '10.1.0.10 : goto profile[0-9]*' | grep -o 'profile[0-9]*'); "+
		"now=$(nft list chain inet policy_test $chain | sed '"+program+"'); "+
		"(echo flush chain inet policy_test $chain; echo \"$now\") | nft -f -")
}

// A profile that begins with a verdict is told by each element that leads to it as well.
func TestCompareNamesARuleBeforeTheElementsThatLeadToItsChain(t *testing.T) {
	n := newNode(t, 1)
	for i := range 30 {
		// It has the addresses of a pod, and nothing else of one.
		n.pods = append(n.pods, &pod{v4: n.pods[i].v4.Next(), v6: n.pods[i].v6.Next()})
	}
	all := isolate(0, policy.Ingress, policy.Rule{Ports: []policy.Port{exactly(80)}})
	all.Pods = labels.Everything()
	wanted := n.cluster(all)
	n.apply(policy.NewCompiler(), wanted)
	n.changeChain("s/jump ports[0-9]*/accept/")

	found := n.differences(wanted, n.bridge)
	first, _, _ := strings.Cut(found, "\n")
	if !strings.Contains(first, "rule 1 of chain profile") || !strings.Contains(found, "more differences") {
		t.Errorf("it begins with %q: %s", first, found)
	}
}

// leadAstray has the elements of the first pod's ingress lead to the chain that the second pod's of a map of
// IPv4 do.
func (n *node) leadAstray(to string) {
	n.t.Helper()
	n.in(n.netns, "chain=$(nft list map inet policy_test "+to+" | "+
		"grep -o '10.1.0.11 : goto profile[0-9]*' | "+
		`grep -o 'profile[0-9]*')
		for e in 4,10.1.0.10 6,fd00:1::a; do
			element="element inet policy_test ingress${e%%,*} { ${e#*,}"
			nft "delete $element }; add $element : goto $chain }"
		done`)
}

var block = policy.Rule{Peers: []policy.Peer{{Block: netip.MustParsePrefix("192.0.2.0/24")}}}

func TestCompareLeavesTheChainAloneThatAnElementWasLedTo(t *testing.T) {
	n := newNode(t, 2)
	wanted := n.cluster(
		isolate(0, policy.Ingress, policy.Rule{Ports: []policy.Port{exactly(80)}}),
		isolate(1, policy.Ingress, block),
	)
	n.apply(policy.NewCompiler(), wanted)
	n.leadAstray("ingress4")

	found := n.differences(wanted, n.bridge)
	if strings.Count(found, "\n") != 2 || strings.Contains(found, "chain") ||
		!strings.Contains(found, "element 10.1.0.10 of set ingress4 is not as it should be") {
		t.Errorf("it says %q", found)
	}
}

// Profiles of the two directions may have the same maps, and look at other addresses.
func TestCompareSeesAnElementThatLeadsToTheOtherDirection(t *testing.T) {
	n := newNode(t, 2)
	wanted := n.cluster(isolate(0, policy.Ingress, block), isolate(1, policy.Egress, block))
	n.apply(policy.NewCompiler(), wanted)
	n.leadAstray("egress4")

	found := n.differences(wanted, n.bridge)
	if !strings.Contains(found, "(ingress of 10.1.0.10, ingress of fd00:1::a) is not as it should be") ||
		strings.Contains(found, "egress of") {
		t.Errorf("it says %q", found)
	}
}
