package hostnat

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// tracked counts the tracked connections whose first packet went to a port.
func (k kernel) tracked(port uint16) (count int, err error) {
	m := netlink.NewMessage("list tracked connections", ctGet, 0, nfgenmsg(unix.NFPROTO_IPV4))
	err = k.conn.Dump(m, func(_ uint16, body []byte) {
		if parseTuple(originalTuple(body)).port == port {
			count++
		}
	})
	return count, err
}

// A client that keeps sending from one port would keep the entry of the pod before.
func TestConnectionsToAUDPHostPortGoWithThePort(t *testing.T) {
	testenv.Root(t)
	err := namespace.Do(func() error {
		link, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = link.Close() }()

		const lo = 1
		pod := netip.MustParseAddrPort("10.1.0.2:53")
		err = link.Must(
			rtnl.SetUp(lo),
			rtnl.NewAddress(lo, netip.PrefixFrom(pod.Addr(), 32), 0),
		)
		if err != nil {
			return err
		}

		table, err := Open(Config{
			Network: "test",
			Bridge:  "br0",
			SNAT:    true,
			Ports:   true,
		})
		if err != nil {
			return err
		}
		defer func() { _ = table.Close() }()

		if err := table.Ensure(); err != nil {
			return err
		}

		ports := []Port{{HostPort: 8053, Protocol: "udp", Pod: pod}}
		if err := table.AddPorts("pod/eth0", ports); err != nil {
			return err
		}

		// One connection to the host port, and one to another port.
		for _, to := range []string{"127.0.0.1:8053", "127.0.0.1:8054"} {
			c, err := net.Dial("udp4", to)
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }()

			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
		}

		if n, err := table.kernel.tracked(8053); err != nil || n != 1 {
			t.Errorf("%d connections, %v", n, err)
		}

		if err := table.Remove("pod/eth0", nil); err != nil {
			return err
		}
		if n, err := table.kernel.tracked(8053); err != nil || n != 0 {
			t.Errorf("%d connections to the port that has gone, %v", n, err)
		}
		if n, err := table.kernel.tracked(8054); err != nil || n != 1 {
			t.Errorf("%d connections to another port, %v", n, err)
		}

		return nil
	}, testenv.Netns(t))
	if err != nil {
		t.Error(err)
	}
}
