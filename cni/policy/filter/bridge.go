package filter

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/nft"
)

// Bridge is the bridge of the pods. What pods send each other is routed by the host, and so passes the rules;
// but a pod that may write raw frames can address its neighbour on the bridge, or write another pod's address
// as the source.
type Bridge struct {
	MAC net.HardwareAddr
	// Subnets are those whose frames do not pass the host's rules by themselves.
	Subnets []netip.Prefix
	// Ports are the bridge's ports with the addresses of the pods behind them, as far as these are on record.
	Ports map[string][]netip.Addr
	// Others are its other ports that lead to pods: another plugin has attached these.
	Others []string
}

// Of IPv6, every interface has addresses of linkLocal6, and what they send is not routed; what goes to
// multicast6 goes to all.
var (
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
	multicast6 = netip.MustParsePrefix("ff00::/8")
)

// layoutOfBridge returns the rules for frames: one from an address that the pod does not have is dropped; one
// between pods goes to the host, whatever its destination; and what is bridged to a pod nevertheless is
// dropped.
func layoutOfBridge(table *nftables.Table, b Bridge) *layout {
	l := newLayout(table)
	if b.MAC == nil {
		return l
	}

	// Before br_netfilter, which begins at 0.
	const natDestination = -300
	text := fmt.Sprint(b.MAC, b.Subnets)
	in := &chain{hook: nftables.ChainHookPrerouting, priority: natDestination, text: text}
	across := &chain{hook: nftables.ChainHookForward, text: text}
	in.rules = l.pin(b.Ports)
	across.rules = l.dropLinkLocal(b)

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

// isPort: iifname|oifname @ports|members.
func isPort(key expr.MetaKey, set string) []expr.Any {
	return newRule(nft.LoadInterface(key), nft.InSet(&nftables.Set{Name: set}))
}

// isForeign: iifname . ip saddr != @owned.
func (f family) isForeign() []expr.Any {
	return newRule(
		nft.LoadInterface(expr.MetaKeyIIFNAME),
		f.LoadAddress(f.Source, nft.Reg0+interfaceSize/4),
		nft.NotInSet(&nftables.Set{Name: f.owned()}),
	)
}

func (f family) owned() string { return "owned" + f.suffix }

// pin adds the sets of ports and of their addresses, and returns the rules that drop what comes from others.
// A frame with a VLAN tag would be none of IP for the rules, and become one in the pod that gets it.
func (l *layout) pin(ports map[string][]netip.Addr) (rules []rule) {
	known := l.set("ports", setKind{key: "ifname"})
	rules = append(rules, newRule(
		isPort(expr.MetaKeyIIFNAME, "ports"),
		nft.IsNotOfType(unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP),
		nft.Verdict(expr.VerdictDrop),
	))
	for _, f := range []family{v4, v6} {
		l.set(f.owned(), setKind{key: "ifname " + f.key})
		statements := [][]expr.Any{f.IsProtocol(), isPort(expr.MetaKeyIIFNAME, "ports")}
		if f == v6 {
			// Neighbours are found with these.
			statements = append(statements,
				f.IsNotWithin(f.Source, linkLocal6),
				f.IsNotWithin(f.Source, netip.PrefixFrom(netip.IPv6Unspecified(), 128)),
			)
		}
		statements = append(statements, f.isForeign(), nft.Verdict(expr.VerdictDrop))
		rules = append(rules, newRule(statements...))
	}

	for port, addresses := range ports {
		key := interfaceKey(port)
		known.elements[key] = element{}
		for _, a := range addresses {
			l.sets[familyOf(a).owned()].elements[key+string(a.AsSlice())] = element{}
		}
	}
	return rules
}

// dropLinkLocal adds the set of all pods' ports, and returns the rules for what is bridged from pod to pod
// with addresses that no policy knows: link-local ones, which pods have in networks of IPv4 too, and none. A
// pod needs them to find the gateway alone, and what goes there is not bridged.
func (l *layout) dropLinkLocal(b Bridge) []rule {
	members := l.set("members", setKind{key: "ifname"})
	for _, port := range slices.AppendSeq(slices.Clone(b.Others), maps.Keys(b.Ports)) {
		members.elements[interfaceKey(port)] = element{}
	}

	return []rule{
		newRule(
			v6.IsProtocol(),
			isPort(expr.MetaKeyIIFNAME, "ports"),
			v6.IsNotWithin(v6.Destination, multicast6),
			v6.isForeign(),
			nft.Verdict(expr.VerdictDrop),
		),
		newRule(
			v6.IsProtocol(),
			isPort(expr.MetaKeyOIFNAME, "members"),
			v6.IsWithin(v6.Destination, linkLocal6),
			nft.Verdict(expr.VerdictDrop),
		),
	}
}

// interfaceSize is how many bytes a key with an interface's name has for it.
const interfaceSize = 16

func interfaceKey(name string) string {
	key := make([]byte, interfaceSize)
	copy(key, name)
	return string(key)
}
