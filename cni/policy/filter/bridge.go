package filter

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/nft"
)

// Bridge is the bridge of the pods. What pods send each other is routed by the host, and so passes the rules;
// but a pod that may write raw frames can address its neighbour on the bridge, or write another pod's address
// as the source.
type Bridge struct {
	MAC net.HardwareAddr
	// Subnets are those whose frames do not pass the host's rules by themselves.
	Subnets []netip.Prefix
	// Ports are the bridge's ports with the addresses of the pods behind them.
	Ports map[string][]netip.Addr
}

// linkLocal6 are addresses that every interface has; what they send is not routed.
var linkLocal6 = netip.MustParsePrefix("fe80::/10")

// layoutOfBridge returns the rules for frames: one from an address that the pod does not have is dropped; one
// between pods goes to the host, whatever its destination; and what is bridged to a pod nevertheless is
// dropped.
func layoutOfBridge(table *nftables.Table, b Bridge) *layout {
	l := newLayout(table)
	if len(b.Subnets)+len(b.Ports) == 0 {
		return l
	}

	// Before br_netfilter, which begins at 0.
	const natDestination = -300
	text := fmt.Sprint(b.MAC, b.Subnets)
	in := &chain{hook: nftables.ChainHookPrerouting, priority: natDestination, text: text}
	across := &chain{hook: nftables.ChainHookForward, text: text}
	in.rules = l.pin(b.Ports)

	for _, p := range b.Subnets {
		f := nft.FamilyOf(p.Addr())
		in.rules = append(in.rules, newRule(
			f.IsProtocol(),
			f.IsWithin(f.Source, p),
			f.IsWithin(f.Destination, p),
			nft.SendTo(b.MAC),
		))
		across.rules = append(across.rules, newRule(
			f.IsProtocol(),
			f.IsWithin(f.Destination, p),
			nft.Verdict(expr.VerdictDrop),
		))
	}

	l.chains["prerouting"], l.chains["forward"] = in, across
	return l
}

// pin adds the sets of ports and of their addresses, and returns the rules that drop what comes from others.
func (l *layout) pin(ports map[string][]netip.Addr) (rules []rule) {
	known := l.set("ports", setKind{key: "ifname"})
	for _, f := range []family{v4, v6} {
		owned := "owned" + f.suffix
		l.set(owned, setKind{key: "ifname " + f.key})
		statements := [][]expr.Any{
			f.IsProtocol(),
			nft.LoadInterface(expr.MetaKeyIIFNAME),
			nft.InSet(&nftables.Set{Name: "ports"}),
		}
		if f == v6 {
			statements = append(statements,
				f.IsNotWithin(f.Source, linkLocal6),
				f.IsNotWithin(f.Source, netip.PrefixFrom(netip.IPv6Unspecified(), 128)),
			)
		}
		statements = append(statements,
			nft.LoadInterface(expr.MetaKeyIIFNAME),
			f.LoadAddress(f.Source, nft.Reg0+interfaceSize/4),
			nft.NotInSet(&nftables.Set{Name: owned}),
			nft.Verdict(expr.VerdictDrop),
		)
		rules = append(rules, newRule(statements...))
	}

	for port, addresses := range ports {
		key := interfaceKey(port)
		known.elements[key] = element{}
		for _, a := range addresses {
			l.sets["owned"+familyOf(a).suffix].elements[key+string(a.AsSlice())] = element{}
		}
	}
	return rules
}

// interfaceSize is how many bytes a key with an interface's name has for it.
const interfaceSize = 16

func interfaceKey(name string) string {
	key := make([]byte, interfaceSize)
	copy(key, name)
	return string(key)
}
