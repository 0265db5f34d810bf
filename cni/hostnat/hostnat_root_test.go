package hostnat_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// host is a network namespace with the table of one network.
type host struct {
	t      *testing.T
	netns  string
	config hostnat.Config
}

func newHost(t *testing.T) *host {
	testenv.Root(t)
	config := hostnat.Config{
		Network:    "test",
		Bridge:     "br0",
		Masquerade: true,
		SNAT:       true,
		Ports:      true,
		Subnets:    []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
	}
	return &host{t, testenv.Netns(t), config}
}

// with opens the table, as each call of the plugin does.
func (h *host) with(f func(*hostnat.Table) error) error {
	return namespace.Do(func() error {
		table, err := hostnat.Open(h.config)
		if err != nil {
			return err
		}
		return errors.Join(f(table), table.Close())
	}, h.netns)
}

func (h *host) must(f func(*hostnat.Table) error) {
	h.t.Helper()
	if err := h.with(f); err != nil {
		h.t.Error(err)
	}
}

// list is the table as nft(8) shows it.
func (h *host) list() string {
	h.t.Helper()
	program := testenv.Program(h.t, "nft", "nftables")
	var out []byte
	err := namespace.Do(func() (err error) {
		out, err = exec.Command(program, "list", "table", "inet", "cni_test").CombinedOutput()
		return err
	}, h.netns)
	if err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}

	return string(out)
}

func owner(i int) string { return fmt.Sprintf("pod-%d/eth0", i) }

func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 88, byte(i >> 8), byte(i)}) }

func port(i int) []hostnat.Port {
	return []hostnat.Port{
		{HostPort: uint16(10000 + i), Protocol: "tcp", Pod: netip.AddrPortFrom(address(i), 80)},
	}
}

// publish makes the table and gives each pod a port.
func (h *host) publish(pods int) {
	h.must(func(table *hostnat.Table) error {
		if err := table.Ensure(); err != nil {
			return err
		}
		for i := range pods {
			if err := table.AddPorts(owner(i), port(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// remove withdraws the port of a pod.
func (h *host) remove(pod int) {
	h.must(func(table *hostnat.Table) error {
		_, err := table.Remove(owner(pod), []netip.Addr{address(pod)})
		return err
	})
}

// staying returns an error unless each of the first pods is among owners.
func staying(owners []string, pods int) error {
	for i := range pods {
		if !slices.Contains(owners, owner(i)) {
			return fmt.Errorf("pod %d is not among %d owners", i, len(owners))
		}
	}
	return nil
}

// The kernel continues a long list by counting, so elements that are deleted meanwhile hide others.
func TestListsAreWholeWhilePodsGo(t *testing.T) {
	const pods, stay = 1600, 1400
	h := newHost(t)
	h.publish(pods)
	var ports []hostnat.Port
	for i := range stay {
		ports = append(ports, port(i)...)
	}

	gone := make(chan struct{})
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := stay + worker; i < pods; i += 4 {
				h.remove(i)
			}
		})
	}

	go func() {
		group.Wait()
		close(gone)
	}()

	h.must(func(table *hostnat.Table) error {
		for {
			owners, err := table.Owners()
			if err := errors.Join(err, staying(owners, stay), table.HasPorts(ports)); err != nil {
				return err
			}

			select {
			case <-gone:
				return nil
			default:
			}
		}
	})

	<-gone

	// Each pod is in the map of ports and in the set of hairpins.
	if left := strings.Count(h.list(), `comment "pod-`); left != 2*stay {
		t.Errorf("%d elements are left of %d pods", left, stay)
	}
}

func TestCollectionIsCompleteThoughPodsGoMeanwhile(t *testing.T) {
	const pods = 40
	h := newHost(t)
	h.publish(pods)
	var group sync.WaitGroup
	for i := range pods / 2 {
		group.Go(func() { h.remove(i) })
		group.Go(func() {
			h.must(func(table *hostnat.Table) error {
				valid := func(o string) bool { return strings.HasPrefix(o, "pod-39/") }
				if _, err := table.Keep(valid); err != nil {
					return err
				}

				for i := range pods - 1 {
					if table.HasPorts(port(i)) == nil {
						return fmt.Errorf("pod %d outlives a collection that succeeded", i)
					}
				}

				return table.HasPorts(port(pods - 1))
			})
		})
	}

	group.Wait()
}

// Of many that find rules missing or old, each succeeds, and the rules are there once.
func TestManyMakeTheRulesAtOnce(t *testing.T) {
	h := newHost(t)
	for round := range 8 {
		h.config.NoMasq = []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(round), 0, 0}), 16),
		}
		var group sync.WaitGroup
		for range 12 {
			group.Go(func() { h.must((*hostnat.Table).Ensure) })
		}

		group.Wait()

		// For each family that of hairpins and of what leaves the bridge, and those of 127.0.0.1 and
		// neighbours.
		if rules := strings.Count(h.list(), "masquerade"); rules != 6 {
			t.Errorf("round %d: %d rules masquerade:\n%s", round, rules, h.list())
		}
		if markers := strings.Count(h.list(), "chain config_"); markers != 1 {
			t.Errorf("round %d: %d markers", round, markers)
		}
	}
}

func TestAPodHasThousandsOfPorts(t *testing.T) {
	const count = 3000
	h := newHost(t)
	sandbox := strings.Repeat("f", 64) + "/eth0"
	var ports []hostnat.Port
	for i := range count {
		p := port(i)[0]
		p.Pod = netip.AddrPortFrom(address(1), p.HostPort)
		ports = append(ports, p)
	}

	h.must(func(table *hostnat.Table) error {
		if err := table.Ensure(); err != nil {
			return err
		}
		if err := table.AddPorts(sandbox, ports); err != nil {
			return err
		}
		if err := table.HasPorts(ports); err != nil {
			return err
		}
		_, err := table.Keep(func(string) bool { return false })
		return err
	})

	h.must(func(table *hostnat.Table) error {
		owners, err := table.Owners()
		if len(owners) > 0 {
			t.Errorf("%v have elements still", owners)
		}
		return err
	})
}
