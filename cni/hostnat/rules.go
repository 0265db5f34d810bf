package hostnat

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/nft"
)

// chain is a chain of the table with its rules, as data.
type chain struct {
	name string
	// kind, hook and priority are zero in a chain that only others jump to.
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	rules    []rule
}

type rule []expr.Any

// newRule puts the statements of a rule together.
func newRule(parts ...[]expr.Any) rule { return slices.Concat(parts...) }

// hostPortChain is where host ports are translated. The chains of all hooks that packets to host ports pass
// jump to it.
const hostPortChain = "hostports"

// ruleset is what the table of a network should hold, by its configuration.
type ruleset struct {
	config Config
	table  *nftables.Table
	// families are IPv4 and IPv6.
	families [2]*family
}

func newRuleset(config Config) ruleset {
	table := &nftables.Table{Name: tableName(config.Network), Family: nftables.TableFamilyINet}
	return ruleset{
		config:   config,
		table:    table,
		families: [2]*family{newFamily4(table), newFamily6(table)},
	}
}

func (w ruleset) v4() *family { return w.families[0] }

// familyOf returns the family of an address.
func (w ruleset) familyOf(a netip.Addr) *family {
	if a.Is4() {
		return w.families[0]
	}

	return w.families[1]
}

// markerPrefix begins the name of the marker.
const markerPrefix = "config_"

// marker returns the name of a chain that says which configuration the rules were made from: one cheap
// message asks for it. The chain is never called, and holds one rule, which goes with all the others when
// somebody flushes the table.
func (w ruleset) marker() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "3 %+v", w.config))
	return markerPrefix + hex.EncodeToString(sum[:6])
}

// notMasqueraded returns the destinations that see the pods' own addresses.
func (w ruleset) notMasqueraded(f *family) []netip.Prefix {
	return slices.Concat(w.config.Subnets, w.config.NoMasq, []netip.Prefix{f.multicast})
}

// chains returns what the table holds for the configuration.
func (w ruleset) chains() []chain {
	all := []chain{w.postrouting()}
	if w.config.Ports {
		all = append(all, w.hostPorts()...)
	}
	if w.config.Ports && w.config.SNAT {
		all = append(all, w.loopback())
	}
	return append(all, chain{name: w.marker(), rules: []rule{nft.Verdict(expr.VerdictReturn)}})
}

// postrouting masquerades.
func (w ruleset) postrouting() chain {
	c := chain{
		name:     "postrouting",
		kind:     nftables.ChainTypeNAT,
		hook:     nftables.ChainHookPostrouting,
		priority: nftables.ChainPriorityNATSource,
	}

	// A pod that reaches itself by its host port must not get the reply past the translation.
	for _, f := range w.families {
		second := nft.Reg0 + uint32(f.Size)/4
		c.rules = append(c.rules, newRule(
			f.IsFamily(),
			f.LoadAddress(f.Source, nft.Reg0),
			f.LoadAddress(f.Destination, second),
			nft.InSet(f.hairpin),
			nft.Masquerade(),
		))
	}

	if w.config.Ports && w.config.SNAT {
		c.rules = append(c.rules, w.sourceNAT()...)
	}
	if w.config.Masquerade {
		c.rules = append(c.rules, w.masqueraded()...)
	}

	return c
}

// sourceNAT returns the rules for what reaches a host port by loopback or from the same bridge: the pod can
// answer neither directly.
func (w ruleset) sourceNAT() []rule {
	f := w.v4()
	rules := []rule{newRule(
		nft.InterfaceIs(expr.MetaKeyOIFNAME, w.config.Bridge),
		f.IsFamily(),
		f.IsWithin(f.Source, loopback4),
		nft.Masquerade(),
	)}
	if w.config.HostRouted {
		return rules
	}

	// The pod would answer its neighbour on the bridge directly, past the translation.
	return append(rules, newRule(
		nft.InterfaceIs(expr.MetaKeyIIFNAME, w.config.Bridge),
		nft.InterfaceIs(expr.MetaKeyOIFNAME, w.config.Bridge),
		nft.IsTranslated(),
		nft.Masquerade(),
	))
}

// masqueraded returns the rules for what pods send out. They match the bridge, not the source: the
// runtimeConfig of one pod may bring a range that the configuration does not have.
func (w ruleset) masqueraded() (rules []rule) {
	for _, f := range w.families {
		rules = append(rules, newRule(
			nft.InterfaceIs(expr.MetaKeyIIFNAME, w.config.Bridge),
			nft.InterfaceIsNot(expr.MetaKeyOIFNAME, w.config.Bridge),
			f.IsFamily(),
			f.LoadAddress(f.Destination, nft.Reg0),
			nft.NotInSet(f.noMasq),
			nft.Masquerade(),
		))
	}
	return rules
}

// hostPorts returns the chain that translates host ports, and those that jump to it for packets to this host.
func (w ruleset) hostPorts() []chain {
	ports := chain{name: hostPortChain}
	for _, f := range w.families {
		behind := nft.Reg0 + uint32(f.Size)/4
		// The port of one address of the node comes before that of all of them.
		ports.rules = append(ports.rules,
			newRule(
				f.IsFamily(),
				f.LoadAddress(f.Destination, nft.Reg0),
				nft.LoadProtocol(behind),
				nft.LoadPort(behind+1),
				nft.Lookup(f.addrPorts),
				f.Translate(),
			),
			newRule(
				f.IsFamily(),
				nft.LoadProtocol(nft.Reg0),
				nft.LoadPort(nft.Reg0+1),
				nft.Lookup(f.ports),
				f.Translate(),
			),
		)
	}

	toHost := newRule(nft.IsToThisHost(), nft.Jump(hostPortChain))
	return []chain{
		ports,
		{
			name:     "prerouting",
			kind:     nftables.ChainTypeNAT,
			hook:     nftables.ChainHookPrerouting,
			priority: nftables.ChainPriorityNATDest,
			rules:    []rule{toHost},
		},
		{
			name:     "output",
			kind:     nftables.ChainTypeNAT,
			hook:     nftables.ChainHookOutput,
			priority: nftables.ChainPriorityNATDest,
			rules:    []rule{toHost},
		},
	}
}

var loopback4 = netip.MustParsePrefix("127.0.0.0/8")

// loopback returns the chain that keeps pods from the host's loopback addresses. route_localnet, which host
// ports on 127.0.0.1 need, lets them reach services there, and reach others in the name of the host itself.
func (w ruleset) loopback() chain {
	f := w.v4()
	c := chain{
		name:     "loopback",
		kind:     nftables.ChainTypeFilter,
		hook:     nftables.ChainHookPrerouting,
		priority: nftables.ChainPriorityRaw,
	}

	for _, side := range []uint32{f.Destination, f.Source} {
		c.rules = append(c.rules, newRule(
			nft.InterfaceIs(expr.MetaKeyIIFNAME, w.config.Bridge),
			f.IsFamily(),
			f.IsWithin(side, loopback4),
			nft.Verdict(expr.VerdictDrop),
		))
	}

	return c
}
