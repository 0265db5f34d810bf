package portmap

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/trivet-node/trivet/cni/conntrack"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/iptables"
)

// The table and its chains. What is translated is in a chain for each container; what is to be masqueraded
// gets a mark there.
const (
	nat       = "nat"
	dnatChain = "CNI-HOSTPORT-DNAT"
	markChain = "CNI-HOSTPORT-SETMARK"
	masqChain = "CNI-HOSTPORT-MASQ"
)

// chainOf returns the name of the chain of a container.
func chainOf(network, container string) string { return "CNI-DN-" + hashOf(network+container, 21) }

// maxPorts is how many ports one multiport match takes.
const maxPorts = 15

func (p Pod) publishIPTables() error {
	for _, family := range iptables.Families {
		ports, own, ok := p.ofFamily(family == iptables.IPv6)
		if !ok {
			continue
		}

		err := iptables.Edit(family, nat, func(t *iptables.Table) error {
			if p.SNAT && p.SetMarkChain == "" {
				p.addMarks(t)
			}
			addEntry(t)
			p.addPorts(t, ports, own)
			return nil
		})
		if err != nil {
			return fmt.Errorf("publish host ports of %s: %w", p.Owner, err)
		}
	}

	return nil
}

// addMarks adds the chain that marks what is to be masqueraded, and the one that does it: before the
// others, since the chains of the bridge plugin would take it first.
func (p Pod) addMarks(t *iptables.Table) {
	mark := p.mark()
	t.EnsureChain(markChain)
	if len(t.Rules(markChain, " --set-xmark "+mark+" ")) == 0 {
		t.Append(markChain, setMark(p.mark())...)
	}

	t.EnsureChain(masqChain)
	if len(t.Rules(masqChain, " --mark "+mark+" ")) == 0 {
		t.Append(masqChain, isMarked(p.mark())...)
	}
	if len(t.Rules("POSTROUTING", " -j "+masqChain+" ")) == 0 {
		t.Prepend("POSTROUTING", toMarked...)
	}
}

func (p Pod) mark() string { return fmt.Sprintf("%#x/%#x", 1<<p.MarkBit, 1<<p.MarkBit) }

// setMark, isMarked and toMarked are the rules about marks.
func setMark(mark string) []string {
	const comment = "CNI portfwd masquerade mark"
	return []string{"-m", "comment", "--comment", comment, "-j", "MARK", "--set-xmark", mark}
}

func isMarked(mark string) []string {
	return []string{"-m", "mark", "--mark", mark, "-j", "MASQUERADE"}
}

var toMarked = []string{"-m", "comment", "--comment", "CNI portfwd requiring masquerade", "-j", masqChain}

// hooks lead what is sent to this host to the chains of the containers, by toHost.
var (
	hooks  = []string{"PREROUTING", "OUTPUT"}
	toHost = []string{"-m", "addrtype", "--dst-type", "LOCAL", "-j", dnatChain}
)

func addEntry(t *iptables.Table) {
	t.EnsureChain(dnatChain)
	for _, hook := range hooks {
		if len(t.Rules(hook, " -j "+dnatChain+" ")) == 0 {
			t.Append(hook, toHost...)
		}
	}
}

// shared are the rules that the containers of all networks with one mark share.
func (p Pod) shared() (all []iptables.Rule) {
	for _, hook := range hooks {
		all = append(all, iptables.Rule{Chain: hook, Words: toHost})
	}
	if p.SNAT && p.SetMarkChain == "" {
		all = append(all,
			iptables.Rule{Chain: markChain, Words: setMark(p.mark())},
			iptables.Rule{Chain: masqChain, Words: isMarked(p.mark())},
			iptables.Rule{Chain: "POSTROUTING", Words: toMarked},
		)
	}
	return all
}

// addPorts writes the chain of the container, and what leads to it.
func (p Pod) addPorts(t *iptables.Table, ports []hostnat.Port, own netip.Prefix) {
	chain := chainOf(p.Network, p.Owner.ContainerID)
	t.Delete(t.Rules(dnatChain, " -j "+chain+" ")...)
	t.ReplaceChain(chain)
	for _, rule := range p.entries(ports, own.Addr().Is6()) {
		t.Append(dnatChain, append(rule, "-j", chain)...)
	}
	for _, port := range ports {
		for _, rule := range p.translation(port, own) {
			t.Append(chain, rule...)
		}
	}
}

// comment names the container, within the 255 bytes that iptables takes.
func comment(network, container string) string {
	text := fmt.Sprintf(`dnat name: "%s" id: "%s"`, network, container)
	if len(text) > 255 {
		return text[:253] + "..."
	}
	return text
}

// entries are the matches that lead to the chain of the container, for as many ports at once as a match
// takes.
func (p Pod) entries(ports []hostnat.Port, is6 bool) (rules [][]string) {
	byProtocol := map[string][]string{}
	for _, port := range ports {
		number := strconv.Itoa(int(port.HostPort))
		byProtocol[port.Protocol] = append(byProtocol[port.Protocol], number)
	}

	for _, protocol := range slices.Sorted(maps.Keys(byProtocol)) {
		for part := range slices.Chunk(byProtocol[protocol], maxPorts) {
			rules = append(rules, p.entry(protocol, strings.Join(part, ","), is6))
		}
	}

	return rules
}

// entry is the match of a list of ports.
func (p Pod) entry(protocol, list string, is6 bool) []string {
	rule := []string{
		"-m", "comment", "--comment", comment(p.Network, p.Owner.ContainerID),
		"-m", "multiport", "-p", protocol, "--destination-ports", list,
	}
	return append(rule, p.conditions(is6)...)
}

// translation are the rules of one host port: marks first.
func (p Pod) translation(port hostnat.Port, own netip.Prefix) (rules [][]string) {
	match := []string{"-p", port.Protocol, "--dport", strconv.Itoa(int(port.HostPort))}
	if port.HostIP.IsValid() {
		match = append(match, "-d", port.HostIP.String())
	}

	add := func(rule ...string) { rules = append(rules, slices.Concat(match, rule)) }
	if p.SNAT {
		mark := p.SetMarkChain
		if mark == "" {
			mark = markChain
		}
		for _, source := range p.masqueradedSources(own) {
			add("-s", source, "-j", mark)
		}
	}

	add("-j", "DNAT", "--to-destination", port.Pod.String())
	return rules
}

func (p Pod) masqueradedSources(own netip.Prefix) []string {
	is6 := own.Addr().Is6()
	switch {
	case p.MasqueradeAll && is6:
		return []string{"::/0"}
	case p.MasqueradeAll:
		return []string{"0.0.0.0/0"}
	case is6:
		return []string{own.String()}
	}
	return []string{own.String(), loopback.String()}
}

func withdrawIPTables(network, container string) error {
	chain := chainOf(network, container)
	var gone []conntrack.Port
	err := iptables.EditWhereThere(nat, chain, func(t *iptables.Table) error {
		gone = append(gone, remove(t, chain)...)
		return nil
	})
	return errors.Join(err, forget(gone))
}

// keepIPTables removes the chains that rules with the network's name lead to, but for those of valid
// containers.
func keepIPTables(network string, keep map[string]bool) error {
	valid := map[string]bool{}
	for container := range keep {
		valid[chainOf(network, container)] = true
	}

	// As iptables -S prints it.
	ofNetwork := strings.TrimSuffix(iptables.Quoted(fmt.Sprintf(`dnat name: "%s" id: `, network)), `"`)
	var gone []conntrack.Port
	err := iptables.EditWhereThere(nat, dnatChain, func(t *iptables.Table) error {
		for _, chain := range t.Chains("CNI-DN-") {
			isOwn := len(t.Rules(dnatChain, ofNetwork, " -j "+chain+" ")) > 0
			if isOwn && !valid[chain] {
				gone = append(gone, remove(t, chain)...)
			}
		}
		return nil
	})
	return errors.Join(err, forget(gone))
}

// remove removes the chain of a container and what leads to it. It returns the UDP host ports of the chain.
func remove(t *iptables.Table, chain string) (udp []conntrack.Port) {
	for _, rule := range t.Rules(chain, " -p udp ", " -j DNAT ") {
		if p, ok := translated(rule); ok {
			udp = append(udp, p)
		}
	}
	t.Delete(t.Rules(dnatChain, " -j "+chain+" ")...)
	t.DeleteChain(chain)
	return udp
}

// translated returns the host port that a rule translates, as iptables prints it.
func translated(rule string) (p conntrack.Port, ok bool) {
	words := strings.Fields(rule)
	value := func(option string) string {
		if i := slices.Index(words, option); i >= 0 && i+1 < len(words) {
			return words[i+1]
		}
		return ""
	}

	number, err := strconv.ParseUint(value("--dport"), 10, 16)
	to, toErr := netip.ParseAddrPort(value("--to-destination"))
	if err != nil || toErr != nil {
		return p, false
	}
	p = conntrack.Port{Is6: to.Addr().Is6(), Number: uint16(number)}
	if host, err := netip.ParsePrefix(value("-d")); err == nil {
		p.Address = host.Addr()
	}
	return p, true
}
