package portmap

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/conntrack"
	"github.com/trivet-node/trivet/cni/nft"
)

func (t table) delete(changes *nftables.Conn, rules []nft.Rule) {
	for _, r := range rules {
		// It fails only for a rule without a handle.
		_ = changes.DelRule(&nftables.Rule{
			Table:  t.nft,
			Chain:  &nftables.Chain{Table: t.nft, Name: r.Chain},
			Handle: r.Handle,
		})
	}
}

// handle names a rule of the table of a family, for as long as the table is there.
type handle struct {
	nfproto byte
	number  uint64
}

// handlesOf returns the rules that a container has.
func handlesOf(container string) (map[handle]bool, error) {
	all := map[handle]bool{}
	err := eachTable(func(t table) error {
		rules, err := t.rulesOf(container)
		for _, r := range rules {
			all[t.handleOf(r)] = true
		}
		return err
	})
	return all, err
}

func (t table) handleOf(r nft.Rule) handle { return handle{nfproto: t.NFProto, number: r.Handle} }

// withdrawNFTables removes the rules of a container but for some.
func withdrawNFTables(container string, but map[handle]bool) error {
	return eachTable(func(t table) error {
		return t.withdraw(func(r nft.Rule) bool {
			return r.Comment == nft.Cut(container) && !but[t.handleOf(r)]
		})
	})
}

// WithdrawFrom removes the rules in nftables that have a container's name and lead to an address which it has
// not any more, by address: those that upstream's plugin has added do not say which network they are of.
func WithdrawFrom(containers map[netip.Addr]string) error {
	former := map[string][]netip.Addr{}
	for a, container := range containers {
		former[nft.Cut(container)] = append(former[nft.Cut(container)], a)
	}

	return eachTable(func(t table) error {
		return t.withdraw(func(r nft.Rule) bool {
			return slices.ContainsFunc(former[r.Comment], func(a netip.Addr) bool {
				return a.Is6() == t.is6() && r.Mentions(a.AsSlice())
			})
		})
	})
}

// withdraw removes some of the rules of containers.
func (t table) withdraw(due func(nft.Rule) bool) error {
	return nft.Retry(func() error {
		all, err := t.containerRules()
		var rules []nft.Rule
		for _, r := range all {
			if due(r) {
				rules = append(rules, r)
			}
		}
		if err != nil || len(rules) == 0 {
			return err
		}

		changes, err := nft.Begin()
		if err != nil {
			return err
		}

		t.delete(changes, rules)
		if err := changes.Flush(); err != nil {
			return err
		}
		return conntrack.ForgetUDP(t.reader.Conn, t.udpPorts(rules))
	})
}

// udpPorts returns the UDP host ports that some rules translate.
func (t table) udpPorts(rules []nft.Rule) (all []conntrack.Port) {
	for _, r := range rules {
		to := r.Destination()
		if r.Chain != masquerades && to.Protocol == unix.IPPROTO_UDP && to.Port != 0 {
			all = append(all, conntrack.Port{Is6: t.is6(), Address: to.Address, Number: to.Port})
		}
	}
	return all
}

func keepNFTables(network string, keep map[string]bool) error {
	valid := map[string]bool{}
	for container := range keep {
		valid[nft.Cut(container)] = true
	}

	return eachTable(func(t table) error {
		rules, err := t.reader.Rules(hostIPPorts)
		if err != nil {
			return err
		}

		garbage := map[string]bool{}
		for _, r := range rules {
			if r.Interface == markOf(network) && !valid[r.Comment] {
				garbage[r.Comment] = true
			}
		}

		return t.withdraw(func(r nft.Rule) bool { return garbage[r.Comment] })
	})
}
