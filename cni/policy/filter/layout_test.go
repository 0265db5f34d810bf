package filter

import (
	"net/netip"
	"testing"

	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/policy"
)

// visits counts the elements that a kernel looks at which checks a chain by every way that leads to it, as
// most do.
func (l *layout) visits(name string) (count int) {
	for _, r := range l.chains[name].rules {
		for _, e := range r {
			switch e := e.(type) {
			case *expr.Verdict:
				if e.Chain != "" {
					count += l.visits(e.Chain)
				}
			case *expr.Lookup:
				for _, to := range l.sets[e.SetName].elements {
					count++
					if to.verdict.Chain != "" {
						count += l.visits(to.verdict.Chain)
					}
				}
			}
		}
	}
	return count
}

// large is a state in which pods have a profile of one direction each, with many peers.
func large(pods, peers int) *policy.State {
	address := func(net byte, i int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, net, byte(i >> 8), byte(i)})
	}
	s := &policy.State{
		Numbers:  [2]map[netip.Addr]uint32{{}, {}},
		Profiles: map[uint32]*policy.Profile{},
	}
	for _, d := range policy.Directions {
		n := uint32(d) + 1
		s.Profiles[n] = &policy.Profile{Direction: d, Peers: map[netip.Addr]policy.Ports{}}
		for i := range peers {
			s.Profiles[n].Peers[address(2, i)] = policy.AllTraffic
		}
		for i := range pods {
			s.Numbers[d][address(1, i)] = n
		}
	}
	return s
}

func newTestLayout(s *policy.State) *layout {
	return layoutOf(New("test").tables[0], s, &portNumbers{of: map[policy.Ports]uint32{}})
}

func TestTheKernelChecksADirectionForItself(t *testing.T) {
	const pods, peers = 10, 100
	l := newTestLayout(large(pods, peers))
	count := 0
	for name, c := range l.chains {
		if c.hook != nil {
			count += l.visits(name)
		}
	}
	// Each pod leads to its peers, in two directions, and is in the set of those that send to themselves.
	if want := 2 * pods * (1 + peers + 1); count != want {
		t.Errorf("the kernel looks at %d elements, want %d", count, want)
	}
}

// What a pod leads to is told by a hash, not by its thousands of peers.
func TestTheMeaningOfATableIsSmall(t *testing.T) {
	const pods, peers = 110, 5000
	s := large(pods, peers)
	meaning := newTestLayout(s).meaning()
	size := 0
	for _, content := range meaning {
		size += len(content)
	}
	if limit := 100 * len(meaning); size > limit {
		t.Errorf("%d objects are told in %d bytes, want %d", len(meaning), size, limit)
	}

	for a := range s.Profiles[1].Peers {
		delete(s.Profiles[1].Peers, a)
		break
	}
	if found := compareMeanings("t", newTestLayout(s).meaning(), meaning); len(found) != pods {
		t.Errorf("a peer less is seen at %d pods, want %d", len(found), pods)
	}
}

func BenchmarkMeaning(b *testing.B) {
	l := newTestLayout(large(110, 5000))
	b.ReportAllocs()
	for b.Loop() {
		clear(l.effects)
		l.meaning()
	}
}
