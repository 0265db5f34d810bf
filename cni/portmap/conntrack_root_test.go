package portmap

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/trivet-node/trivet/cni/conntrack/conntracktest"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// published is a pod, whose address is on lo, with two UDP host ports, one of them of one address of the
// host.
func published(b Backend) (Pod, error) {
	pod := netip.MustParseAddrPort("10.1.0.2:53")
	host, err := rtnl.Open()
	if err != nil {
		return Pod{}, err
	}
	defer func() { _ = host.Close() }()
	const lo = 1
	err = host.Must(rtnl.SetUp(lo), rtnl.NewAddress(lo, prefix.Single(pod.Addr()), 0))
	if err != nil {
		return Pod{}, err
	}

	p := Pod{
		Config: Config{Network: "n", Backend: b},
		Owner:  ipam.Owner{ContainerID: "abc", IfName: "eth0"},
		Ports: []hostnat.Port{
			{HostPort: 8053, Protocol: "udp", Pod: pod},
			{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8054, Protocol: "udp", Pod: pod},
		},
		Subnets: []netip.Prefix{prefix.Single(pod.Addr())},
	}
	return p, p.Publish()
}

// A client that keeps sending from one port would keep the entry of a container that is gone. DEL and GC know
// the ports from the rules alone.
func TestConnectionsToUDPHostPortsGoWithTheRules(t *testing.T) {
	testenv.Root(t)
	testenv.Program(t, "iptables", "iptables")
	for _, backend := range []Backend{NFTables, IPTables} {
		for name, remove := range map[string]func() error{
			"DEL": func() error { return Withdraw("n", "abc") },
			"GC":  func() error { return Keep("n", nil) },
		} {
			t.Run(fmt.Sprint(backend, " ", name), func(t *testing.T) {
				err := namespace.Do(func() error {
					if _, err := published(backend); err != nil {
						return err
					}
					if err := conntracktest.Send(8053, 8054, 8055); err != nil {
						return err
					}
					if err := conntracktest.Expect(map[uint16]int{8053: 1, 8054: 1, 8055: 1}); err != nil {
						return err
					}

					if err := remove(); err != nil {
						return err
					}
					return conntracktest.Expect(map[uint16]int{8053: 0, 8054: 0, 8055: 1})
				}, testenv.Netns(t))
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestTheHostPortOfARuleIsRead(t *testing.T) {
	for rule, want := range map[string]string{
		"--dport 53 -j DNAT --to-destination 10.0.0.2:5353":                     "false invalid IP 53",
		"-d 192.0.2.1/32 --dport 53 -j DNAT --to-destination 10.0.0.2:5353":     "false 192.0.2.1 53",
		"-d 2001:db8::1/128 --dport 53 -j DNAT --to-destination [fd00::2]:5353": "true 2001:db8::1 53",
		"--dport 53:54 -j DNAT --to-destination 10.0.0.2:5353":                  "",
		"-j DNAT --to-destination":                                              "",
	} {
		got := ""
		if p, ok := translated("-A CNI-DN-x -p udp -m udp " + rule); ok {
			got = fmt.Sprint(p.Is6, p.Address, p.Number)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", rule, got, want)
		}
	}
}
