package filter_test

import (
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/cni/policy"
	"github.com/trivet-node/trivet/cni/policy/policytest"
)

// Policies at random, one state after the other, and packets: what passes is what the policies say.
func TestPacketsPassAsThePoliciesSay(t *testing.T) {
	n := newNode(t, 5)
	compiler := policy.NewCompiler()
	for seed := range uint64(8) {
		d := policytest.NewDice(seed)
		c := d.Cluster()
		for len(c.Policies) < 4 {
			c.Policies = append(c.Policies, d.Policy(len(c.Policies)))
		}
		c.Pods = n.place(c.Pods)
		n.apply(compiler, c)
		if found := n.differences(c, n.bridge); found != "" {
			t.Errorf("seed %d: what was written differs from itself: %s", seed, found)
		}

		var flows sync.WaitGroup
		limit := make(chan struct{}, 16)
		for range 60 {
			f, from := n.flow(d)
			flows.Go(func() {
				limit <- struct{}{}
				defer func() { <-limit }()

				network := map[uint8]string{tcp: "tcp", udp: "udp"}[f.Protocol]
				want := policytest.Reference{Cluster: c}.Allows(f)
				if got := n.reaches(from, network, f.To, int(f.Port), want); got != want {
					t.Errorf("seed %d: %+v passes: %v, want %v", seed, f, got, want)
				}
			})
		}
		flows.Wait()
	}
}

// place gives the node's addresses to the first pods of a cluster, of which all are local.
func (n *node) place(pods []*policy.Pod) []*policy.Pod {
	pods = slices.Clone(pods[:min(len(pods), len(n.pods))])
	for i, p := range pods {
		p.Local = true
		p.Addresses = []netip.Addr{n.pods[i].v4, n.pods[i].v6}
	}
	return pods
}

// flow returns one between two pods, or with the neighbour outside, and where it begins.
func (n *node) flow(d policytest.Dice) (f policytest.Flow, from string) {
	all := append(slices.Clone(n.pods), n.outside)
	source, destination := all[d.IntN(len(all))], all[d.IntN(len(all))]
	f = policytest.Flow{
		From:     source.v4,
		To:       destination.v4,
		Protocol: tcp,
		Port:     uint16(80 + d.IntN(3)),
	}
	if d.IntN(2) == 0 {
		f.From, f.To = source.v6, destination.v6
	}
	if d.IntN(2) == 0 {
		f.Protocol = udp
	}
	return f, source.netns
}
