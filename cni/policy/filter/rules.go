package filter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/cni/policy"
)

type rule []expr.Any

func newRule(parts ...[]expr.Any) rule { return slices.Concat(parts...) }

// counterName is that of the packets that were dropped in a direction.
func counterName(d policy.Direction) string { return "dropped_" + d.String() }

// allow ends a chain at the hook: the next one there is asked.
var allow = expr.Verdict{Kind: expr.VerdictAccept}

// addFixed adds what is the same for all states. Each direction has a chain at the hook, one behind the
// other: the kernel checks what a chain leads to by every way, so that with one that leads to the other it
// would look at each element of ingress for each element of egress.
func (l *layout) addFixed() {
	for _, f := range []family{v4, v6} {
		l.set(f.self(), setKind{key: f.key + " " + f.key})
	}

	for priority, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		c := &chain{hook: nftables.ChainHookForward, priority: nftables.ChainPriority(priority)}
		c.rules = append(c.rules, newRule(nft.IsKnown(), nft.Verdict(expr.VerdictAccept)))
		for _, f := range []family{v4, v6} {
			name := d.String() + f.suffix
			l.set(name, setKind{key: f.key, verdicts: true})
			c.rules = append(c.rules, f.acceptSelf(), newRule(
				f.IsFamily(),
				f.LoadAddress(f.own(d), nft.Reg0),
				nft.VerdictOf(name),
			))
		}
		l.chains[d.String()] = c
	}
}

func (f family) self() string { return "self" + f.suffix }

// acceptSelf accepts what a pod sends to itself by a Service.
func (f family) acceptSelf() rule {
	return newRule(
		f.IsFamily(),
		f.LoadAddress(f.Source, nft.Reg0),
		f.LoadAddress(f.Destination, nft.Reg0+uint32(f.Size)/4),
		nft.InSet(&nftables.Set{Name: f.self()}),
		nft.Verdict(expr.VerdictAccept),
	)
}

// own and peer are where the addresses of the local pod and of the other end are in the IP header.
func (f family) own(d policy.Direction) uint32 {
	if d == policy.Ingress {
		return f.Destination
	}
	return f.Source
}

func (f family) peer(d policy.Direction) uint32 {
	if d == policy.Ingress {
		return f.Source
	}
	return f.Destination
}

// profileMap is a map from the other end's address to what a profile has with it.
type profileMap struct {
	name   string
	family family
}

// newProfileChain returns the chain of a profile: others is what all addresses may have. A map leads to a
// chain that allows some ports and returns for the others.
func newProfileChain(d policy.Direction, others expr.Verdict, maps []profileMap) *chain {
	slices.SortFunc(maps, func(a, b profileMap) int { return strings.Compare(a.name, b.name) })
	c := &chain{text: fmt.Sprint(d, others, maps)}
	if others.Kind != expr.VerdictContinue {
		c.rules = append(c.rules, rule{&others})
	}

	for _, m := range maps {
		c.rules = append(c.rules, newRule(
			m.family.IsFamily(),
			m.family.LoadAddress(m.family.peer(d), nft.Reg0),
			nft.VerdictOf(m.name),
		))
	}

	if others.Kind == expr.VerdictContinue || others.Kind == expr.VerdictJump {
		c.rules = append(c.rules, newRule(nft.Count(counterName(d)), nft.Verdict(expr.VerdictDrop)))
	}
	return c
}

// newPortsChain returns the chain that allows the ports of a set.
func newPortsChain(set string) *chain {
	return &chain{rules: []rule{newRule(
		nft.LoadProtocol(nft.Reg0),
		nft.LoadPort(nft.Reg0+1),
		nft.InSet(&nftables.Set{Name: set}),
		[]expr.Any{&allow},
	)}}
}
