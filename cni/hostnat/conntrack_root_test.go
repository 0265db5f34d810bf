package hostnat

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/trivet-node/trivet/cni/conntrack/conntracktest"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

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
		if err := conntracktest.Expect(map[uint16]int{8053: 1, 8054: 1}); err != nil {
			return err
		}

		gone, err := table.Remove("pod/eth0", nil)
		if err := errors.Join(err, table.ForgetUDP(gone)); err != nil {
			return err
		}
		return conntracktest.Expect(map[uint16]int{8053: 0, 8054: 1})
	}, testenv.Netns(t))
	if err != nil {
		t.Error(err)
	}
}
