package policytest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
)

const tcp, udp, sctp = 6, 17, 132

var (
	selectors  = []string{"", "app=a", "app=b", "app in (a,b)", "app!=a", "!role", "role=db", "app=none"}
	namespaces = []string{"x", "y", "z"}
	portNames  = []string{"web", "dns"}
	blockTexts = []string{
		"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/28", "10.1.0.3/32", "192.0.2.0/24",
		"255.255.255.0/24", "::/0", "fd00::/16", "fd00:1::/64", "fd00:1::3/128", "ffff::/16",
	}
)

// Dice makes clusters. Pods have an address of IPv4 and one of IPv6.
type Dice struct{ *rand.Rand }

// NewDice returns the dice of a seed.
func NewDice(seed uint64) Dice { return Dice{rand.New(rand.NewPCG(seed, 1))} }

func pick[T any](d Dice, all []T) T { return all[d.IntN(len(all))] }

// Cluster returns a cluster with its policies.
func (d Dice) Cluster() policy.Cluster {
	c := policy.Cluster{Namespaces: map[string]labels.Set{
		"x": {"team": "one"},
		"y": {"team": "two"},
		"z": {"team": "one", "role": "db"},
	}}
	for i := range 4 + d.IntN(12) {
		c.Pods = append(c.Pods, d.pod(i))
	}
	for i := range d.IntN(9) {
		c.Policies = append(c.Policies, d.Policy(i))
	}
	return c
}

func (d Dice) pod(i int) *policy.Pod {
	p := &policy.Pod{
		Namespace: pick(d, namespaces),
		Name:      fmt.Sprint("pod", i),
		Labels:    labels.Set{"app": pick(d, []string{"a", "b", "c"})},
		Local:     d.IntN(3) > 0,
		Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}),
			netip.MustParseAddr(fmt.Sprintf("fd00:1::%x", i)),
		},
	}
	if d.IntN(2) == 0 {
		p.Labels["role"] = "db"
	}
	for range d.IntN(3) {
		p.Ports = append(p.Ports, policy.NamedPort{
			Name: pick(d, portNames), Protocol: pick(d, []uint8{tcp, udp}), Number: uint16(80 + d.IntN(4)),
		})
	}
	p.Unknown = p.Local && d.IntN(10) == 0
	return p
}

// Policy returns a policy, by a number for its name.
func (d Dice) Policy(i int) *policy.Policy {
	p := &policy.Policy{
		Namespace: pick(d, namespaces),
		Name:      fmt.Sprint("policy", i),
		Pods:      Selector(pick(d, selectors)),
		Isolates:  pick(d, [][2]bool{{true, false}, {false, true}, {true, true}}),
	}
	for _, direction := range policy.Directions {
		for range d.IntN(3) {
			p.Rules[direction] = append(p.Rules[direction], d.rule())
		}
	}
	return p
}

func (d Dice) rule() (r policy.Rule) {
	for range d.IntN(3) {
		r.Peers = append(r.Peers, d.peer())
	}
	for range d.IntN(3) {
		r.Ports = append(r.Ports, d.port())
	}
	return r
}

func (d Dice) peer() (p policy.Peer) {
	if d.IntN(2) == 0 {
		p.Block = netip.MustParsePrefix(pick(d, blockTexts))
		for range d.IntN(3) {
			x := netip.MustParsePrefix(pick(d, blockTexts))
			if p.Block.Overlaps(x) && x.Bits() > p.Block.Bits() {
				p.Except = append(p.Except, x)
			}
		}
		return p
	}
	p.Pods = Selector(pick(d, selectors))
	if d.IntN(10) == 0 {
		p.Pods = labels.Nothing()
	}
	if d.IntN(2) == 0 {
		p.Namespaces = Selector(pick(d, []string{"", "team=one", "role=db", "team=none"}))
	}
	return p
}

func (d Dice) port() policy.Port {
	p := policy.Port{Protocol: pick(d, []uint8{tcp, udp, sctp}), First: uint16(80 + d.IntN(4))}
	switch d.IntN(4) {
	case 0:
		return policy.AnyPort(p.Protocol)
	case 1:
		p.Last = p.First + uint16(d.IntN(3))
	case 2:
		return policy.Port{Protocol: p.Protocol, Name: pick(d, portNames)}
	default:
		p.Last = p.First
	}
	return p
}

// Flow returns a flow between pods, or with others.
func (d Dice) Flow(c policy.Cluster) Flow {
	others := []string{"10.1.0.200", "192.0.2.7", "255.255.255.255", "203.0.113.1", "0.0.0.0"}
	address := func() netip.Addr {
		if d.IntN(3) == 0 {
			return netip.MustParseAddr(pick(d, others))
		}
		return pick(d, c.Pods).Addresses[0]
	}
	f := Flow{From: address(), To: address(), Protocol: pick(d, []uint8{tcp, udp, sctp, 1})}
	if f.Protocol != 1 {
		f.Port = uint16(79 + d.IntN(8))
	}
	if d.IntN(2) == 0 {
		f.From, f.To = pick(d, c.Pods).Addresses[1], pick(d, c.Pods).Addresses[1]
	}
	return f
}

// Selector parses one.
func Selector(text string) labels.Selector {
	s, err := labels.Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}
