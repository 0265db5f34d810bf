package hostnat_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/cni/hostnat"
)

// owners are those of elements, in order.
func (h *host) owners() (all []string) {
	h.t.Helper()
	h.must(func(table *hostnat.Table) (err error) {
		all, err = table.Owners()
		return err
	})
	return all
}

// crowd gives many pods, behind the first ones, a port each, in few transactions.
func (h *host) crowd(first, pods int) {
	h.t.Helper()
	const part = 500
	h.must(func(table *hostnat.Table) error {
		if err := table.Ensure(); err != nil {
			return err
		}
		for from := first; from < first+pods; from += part {
			var ports []hostnat.Port
			for i := from; i < from+part; i++ {
				ports = append(ports, port(i)...)
			}
			if err := table.AddPorts(fmt.Sprintf("crowd-%d/eth0", from), ports); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestPortsAreRemovedBesideThousandsOfOthers(t *testing.T) {
	const others = 5000
	h := newHost(t)
	h.crowd(10, others)
	h.publish(3)
	before := h.owners()

	// One that is named twice, and one that is not there.
	udp := hostnat.Port{HostPort: 53, Protocol: "udp", Pod: netip.AddrPortFrom(address(1), 53)}
	named := slices.Concat(port(1), port(1), []hostnat.Port{udp})
	h.must(func(table *hostnat.Table) error {
		if err := table.AddPorts(owner(1), []hostnat.Port{udp}); err != nil {
			return err
		}
		for _, want := range []int{1, 0} {
			gone, err := table.RemovePorts(owner(1), named, []netip.Addr{address(1)})
			if err != nil {
				return err
			}
			if len(gone) != want || want == 1 && gone[0].HostPort != 53 {
				t.Errorf("%v of UDP are gone, want %d", gone, want)
			}
		}
		if table.HasPorts(port(1)) == nil || table.HasPorts([]hostnat.Port{udp}) == nil {
			t.Error("a port is left")
		}
		return table.HasPorts(slices.Concat(port(0), port(2), port(10), port(10+others-1)))
	})

	want := slices.DeleteFunc(before, func(o string) bool { return o == owner(1) })
	if now := h.owners(); !slices.Equal(now, want) {
		t.Errorf("owners %q, want %q", now, want)
	}
}

// The record of a pod names ports; another pod may have one of them meanwhile.
func TestAPortThatAnotherPodHasMeanwhileStays(t *testing.T) {
	h := newHost(t)
	h.publish(2)
	stale := slices.Concat(port(0), port(1))
	h.must(func(table *hostnat.Table) error {
		if _, err := table.RemovePorts(owner(0), stale, []netip.Addr{address(0)}); err != nil {
			return err
		}
		return table.HasPorts(port(1))
	})
	if left := h.owners(); !slices.Equal(left, []string{owner(1)}) {
		t.Errorf("owners %q", left)
	}
}

// A pod whose data directory was lost has left ports, which lead to the pod that has its address now.
func TestPortsThatSomebodyElseHasLeftGoWithTheAddress(t *testing.T) {
	h := newHost(t)
	h.publish(2)
	other := hostnat.Port{HostPort: 443, Protocol: "tcp", Pod: netip.AddrPortFrom(address(0), 443)}
	h.must(func(table *hostnat.Table) error {
		if err := table.AddPorts("heir/eth0", []hostnat.Port{other}); err != nil {
			return err
		}
		_, err := table.RemovePorts("heir/eth0", []hostnat.Port{other}, []netip.Addr{address(0)})
		return err
	})
	if left := h.owners(); !slices.Equal(left, []string{owner(1)}) {
		t.Errorf("owners %q", left)
	}
}

func TestNothingIsRemovedWithoutATable(t *testing.T) {
	h := newHost(t)
	h.must(func(table *hostnat.Table) error {
		found, err := table.LeadsTo([]netip.Addr{address(0), netip.MustParseAddr("fd00::1")})
		if found || err != nil {
			t.Errorf("somebody has host ports: %v, %v", found, err)
		}
		gone, err := table.RemovePorts(owner(0), port(0), []netip.Addr{address(0)})
		if err != nil || gone != nil {
			t.Errorf("gone are %v, %v", gone, err)
		}
		_, err = table.Remove(owner(0), nil)
		return err
	})
	if owners := h.owners(); owners != nil {
		t.Errorf("owners %q", owners)
	}
}

func TestAPodWithHostPortsIsFoundByItsAddress(t *testing.T) {
	h := newHost(t)
	h.publish(1)
	h.must(func(table *hostnat.Table) error {
		for _, c := range []struct {
			addresses []netip.Addr
			want      bool
		}{
			{[]netip.Addr{address(0)}, true},
			{[]netip.Addr{netip.MustParseAddr("fd00::1"), address(0)}, true},
			{[]netip.Addr{address(1), netip.MustParseAddr("fd00::1")}, false},
			{nil, false},
		} {
			if found, err := table.LeadsTo(c.addresses); found != c.want || err != nil {
				t.Errorf("%v: %v, %v", c.addresses, found, err)
			}
		}
		return nil
	})
}

// Each transaction of the others makes those void that were put together before it.
func TestPortsAreAddedAndRemovedByManyAtOnce(t *testing.T) {
	const pods, rounds = 16, 12
	h := newHost(t)
	h.publish(0)

	var group sync.WaitGroup
	for i := range pods {
		group.Go(func() {
			h.must(func(table *hostnat.Table) error {
				for range rounds {
					if err := table.AddPorts(owner(i), port(i)); err != nil {
						return err
					}
					_, err := table.RemovePorts(owner(i), port(i), []netip.Addr{address(i)})
					if err != nil {
						return err
					}
				}
				return nil
			})
		})
	}

	group.Wait()
	if left := h.owners(); left != nil {
		t.Errorf("owners %q", left)
	}
}
