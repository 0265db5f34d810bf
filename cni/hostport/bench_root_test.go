package hostport

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/trivet-node/trivet/cni/hostnat"
)

// crowd publishes a port of each of many other pods.
func crowd(n Network, pods int) error {
	const part = 1000
	for from := 0; from < pods; from += part {
		var ports []hostnat.Port
		for i := from; i < min(from+part, pods); i++ {
			pod := netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
			ports = append(ports, port(uint16(10000+i), pod.String())...)
		}
		if err := n.Publish(owner(fmt.Sprintf("crowd-%d", from)), ports); err != nil {
			return err
		}
	}
	return nil
}

// DEL beside other pods with host ports: of a pod with two, and of one without; by record and keys or, as
// without a pool, by lists. The kernel's wait that begins with it is left out: -benchtime=100x.
func BenchmarkWithdraw(b *testing.B) {
	two := append(port(8080, "10.1.0.2"), port(8081, "10.1.0.2")...)

	for _, pods := range []int{10, 1000, 10_000} {
		for _, c := range []struct {
			name  string
			ports []hostnat.Port
			lists bool
		}{
			{"two ports", two, false},
			{"two ports by lists", two, true},
			{"no ports", nil, false},
			{"no ports by lists", nil, true},
		} {
			b.Run(fmt.Sprintf("%s, %d pods", c.name, pods), func(b *testing.B) {
				network(b, func(n Network) error {
					by := n
					if c.lists {
						by.Pool = nil
					}
					if err := crowd(n, pods); err != nil {
						return err
					}
					return withdrawals(b, n, by, c.ports)
				})
			})
		}
	}
}

// withdrawals publishes ports and has another view of the network withdraw them, in each round.
func withdrawals(b *testing.B, n, by Network, ports []hostnat.Port) error {
	b.Helper()
	for b.Loop() {
		b.StopTimer()
		if len(ports) > 0 {
			if err := n.Publish(owner("a"), ports); err != nil {
				return err
			}
		}

		b.StartTimer()
		table, err := by.Withdraw(owner("a"), []netip.Addr{netip.MustParseAddr("10.1.0.2")})
		b.StopTimer()
		if err != nil {
			return err
		}
		if err := errors.Join(table.Close(), storeOf(n.Pool).remove(owner("a"))); err != nil {
			return err
		}
		b.StartTimer()
	}
	return nil
}
