package hostnat

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/conntrack"
	"github.com/trivet-node/trivet/cni/conntrack/conntracktest"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// tracked counts the tracked connections whose first packet went to a port.
func (t *Table) tracked(port uint16) (count int, err error) {
	err = conntrack.List(t.kernel.Conn, unix.NFPROTO_IPV4, func(c conntrack.Connection) {
		if c.Port == port {
			count++
		}
	})
	return count, err
}

// trackedTable returns the table of a network whose pod has its address on lo.
func trackedTable(pod netip.Addr) (*Table, error) {
	link, err := rtnl.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = link.Close() }()

	const lo = 1
	err = link.Must(rtnl.SetUp(lo), rtnl.NewAddress(lo, prefix.Single(pod), 0))
	if err != nil {
		return nil, err
	}

	table, err := Open(Config{
		Network: "test",
		Bridge:  "br0",
		SNAT:    true,
		Ports:   true,
	})
	if err != nil {
		return nil, err
	}

	return table, table.Ensure()
}

// A client that keeps sending from one port would keep the entry of the pod before.
func TestConnectionsToAUDPHostPortGoWithThePort(t *testing.T) {
	testenv.Root(t)
	pod := netip.MustParseAddrPort("10.1.0.2:53")
	err := namespace.Do(func() error {
		table, err := trackedTable(pod.Addr())
		if err != nil {
			return err
		}
		defer func() { _ = table.Close() }()

		ports := []Port{{HostPort: 8053, Protocol: "udp", Pod: pod}}
		if err := table.AddPorts("pod/eth0", ports); err != nil {
			return err
		}

		// One connection is to the host port, and one to another port.
		if err := conntracktest.Send(8053, 8054); err != nil {
			return err
		}
		if n, err := table.tracked(8053); err != nil || n != 1 {
			t.Errorf("%d connections, %v", n, err)
		}

		if err := table.Remove("pod/eth0", nil); err != nil {
			return err
		}
		if n, err := table.tracked(8053); err != nil || n != 0 {
			t.Errorf("%d connections to the port that has gone, %v", n, err)
		}
		if n, err := table.tracked(8054); err != nil || n != 1 {
			t.Errorf("%d connections to another port, %v", n, err)
		}

		return nil
	}, testenv.Netns(t))
	if err != nil {
		t.Error(err)
	}
}
