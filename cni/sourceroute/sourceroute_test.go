package sourceroute_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sourceroute"
)

// seen is a namespace whose interface 3 has two subnets and the default route; table 100 is taken.
func seen() sourceroute.Observed {
	return sourceroute.Observed{
		Index: 3,
		Routes: []rtnl.Route{
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.1.0.1"), Index: 3},
			{Dst: netip.MustParsePrefix("10.1.0.0/24"), Src: netip.MustParseAddr("10.1.0.9"), Index: 3},
			{Dst: netip.MustParsePrefix("10.2.0.0/24"), Src: netip.MustParseAddr("10.2.0.9"), Index: 3},
		},
		Used: map[int]bool{100: true, 254: true},
	}
}

var addresses = []sourceroute.Address{
	{Prefix: netip.MustParsePrefix("10.1.0.9/24"), Gateway: netip.MustParseAddr("10.1.0.1")},
	{Prefix: netip.MustParsePrefix("10.2.0.9/24")},
}

func lines(p sourceroute.Plan) (all []string) {
	for _, r := range p.Rules {
		all = append(all, fmt.Sprintf("rule from %s to %d", r.Src, r.Table))
	}
	for _, r := range p.Routes {
		all = append(all, fmt.Sprintf("route %s via %v src %v table %d", r.Dst, r.Gateway, r.Src, r.Table))
	}
	for _, r := range p.Gone {
		all = append(all, fmt.Sprintf("gone %s", r.Dst))
	}
	return all
}

func TestEachAddressGetsATable(t *testing.T) {
	got := lines(sourceroute.Config{}.Decide(seen(), addresses))
	want := []string{
		"rule from 10.1.0.9/32 to 101",
		"rule from 10.2.0.9/32 to 102",
		"route 0.0.0.0/0 via 10.1.0.1 src invalid IP table 101",
		"route 0.0.0.0/0 via 10.1.0.1 src invalid IP table 101",
		"route 10.1.0.0/24 via invalid IP src 10.1.0.9 table 101",
		"route 10.2.0.0/24 via invalid IP src 10.2.0.9 table 102",
		"gone 0.0.0.0/0",
		"gone 10.1.0.0/24",
		"gone 10.2.0.0/24",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestGatewaysOfTheConfigurationComeInsteadOfThoseOfTheAddresses(t *testing.T) {
	c := sourceroute.Config{Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.254")}}
	got := lines(c.Decide(seen(), addresses[:1]))
	if got[1] != "route 0.0.0.0/0 via 10.1.0.254 src invalid IP table 101" {
		t.Error(got)
	}
}

func TestATableOfSomebodyElseGetsRulesAlone(t *testing.T) {
	got := lines(sourceroute.Config{Table: 42}.Decide(seen(), addresses))
	want := []string{"rule from 10.1.0.9/32 to 42", "rule from 10.2.0.9/32 to 42"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSourceHintsKeepSubnetsInTheMainTable(t *testing.T) {
	p := sourceroute.Config{SourceHints: true}.Decide(seen(), addresses)
	got := lines(sourceroute.Plan{Routes: p.Routes[len(p.Routes)-2:], Gone: p.Gone})
	want := []string{
		"route 10.1.0.0/24 via invalid IP src 10.1.0.9 table 0",
		"route 10.2.0.0/24 via invalid IP src 10.2.0.9 table 0",
		"gone 0.0.0.0/0",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
