package filter

import (
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// oneChain is a layout in which the ingress of one pod leads to a chain with one rule.
func oneChain(name, text string) *layout {
	l := newLayout(&nftables.Table{})
	to := expr.Verdict{Kind: expr.VerdictGoto, Chain: name}
	l.set("ingress4", setKind{key: "ip", verdicts: true}).elements["\x0a\x01\x00\x0a"] = element{verdict: to}
	l.chains[name] = &chain{texts: []string{text}}
	return l
}

func TestANameOfTheKernelIsQuotedUnlessItIsPlain(t *testing.T) {
	for name, want := range map[string]string{
		"profile7":     "rule 1 of chain profile7 (ingress of 10.1.0.10) is not as it should be",
		"a\nok\x1b[2K": `rule 1 of chain "a\nok\x1b[2K" (ingress of 10.1.0.10) is not as it should be`,
		"a (b) is":     `rule 1 of chain "a (b) is" (ingress of 10.1.0.10) is not as it should be`,
	} {
		found := compareBodies("t", oneChain("profile1", "drop"), oneChain(name, "accept"))
		if len(found) != 1 || found[0].What != "t: "+want {
			t.Errorf("%v, want %s", found, want)
		}
	}

	key := "veth\n" + strings.Repeat("\x00", interfaceSize-5) + "\x0a\x01\x00\x0a"
	if got := textOf(setKind{key: "ifname ip"}, key); got != `"veth\n" 10.1.0.10` {
		t.Error(got)
	}
}
