package hostport

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conntrack/conntracktest"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// datagrams are a UDP host port of a pod.
func datagrams(number uint16, pod string) []hostnat.Port {
	ports := port(number, pod)
	ports[0].Protocol = "udp"
	return ports
}

// inUse publishes a UDP host port for each of two pods, whose addresses are on lo, and sends to both.
func inUse(n Network) error {
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	const lo = 1
	err = host.Must(
		rtnl.SetUp(lo),
		rtnl.NewAddress(lo, prefix.Single(netip.MustParseAddr("10.1.0.2")), 0),
		rtnl.NewAddress(lo, prefix.Single(netip.MustParseAddr("10.1.0.3")), 0),
		rtnl.NewAddress(lo, prefix.Single(netip.MustParseAddr("10.1.0.4")), 0),
	)

	return errors.Join(err,
		n.Publish(owner("a"), datagrams(8053, "10.1.0.2")),
		n.Publish(owner("other"), datagrams(8054, "10.1.0.3")),
		conntracktest.Send(8053, 8054),
		conntracktest.Expect(map[uint16]int{8053: 1, 8054: 1}),
	)
}

// collect is GC when the runtime has the other pod alone.
func collect(n Network) error {
	const stdin = `{"name":"test","cni.dev/valid-attachments":[{"containerID":"other","ifname":"eth0"}]}`
	teardown, err := conf.ReadTeardown([]byte(stdin))
	if err != nil {
		return err
	}
	return n.Keep(teardown.Valid)
}

func removeElements(n Network) error {
	return n.withTable(func(t *hostnat.Table) error {
		_, err := t.RemovePorts(owner("a").Label(), datagrams(8053, "10.1.0.2"), nil)
		return err
	})
}

func endRecord(n Network) error { return storeOf(n.Pool).end(owner("a")) }

// The client of a pod that is gone may send without end, so that the kernel keeps its connection. What was
// removed by a plugin that was killed then is not found again: the record says it.
func TestConnectionsAreForgottenWhereverAPluginWasKilled(t *testing.T) {
	keep := func(n Network) error {
		return storeOf(n.Pool).keep(func(o ipam.Owner) bool { return o == owner("other") })
	}
	for name, steps := range map[string][]func(Network) error{
		"nobody":                     nil,
		"DEL, behind the elements":   {removeElements},
		"DEL, when its record ended": {removeElements, endRecord},
		"GC, behind the records":     {keep},
		"GC, behind the elements":    {keep, removeElements},
	} {
		for verb, next := range map[string]func(n Network) error{
			"DEL": func(n Network) error { return withdraw(n, owner("a")) },
			"GC":  collect,
			"ADD": func(n Network) error { return n.Publish(owner("a"), port(8055, "10.1.0.4")) },
		} {
			t.Run(name+" was killed, then "+verb, func(t *testing.T) {
				network(t, func(n Network) error {
					err := inUse(n)
					for _, step := range steps {
						err = errors.Join(err, step(n))
					}

					err = errors.Join(err, next(n), conntracktest.Expect(map[uint16]int{8053: 0, 8054: 1}))
					if storeOf(n.Pool).ended().has(owner("a")) {
						t.Error("there is a record still")
					}
					return err
				})
			})
		}
	}
}

// Another pod may have the port before a DEL that was killed is repeated.
func TestConnectionsOfTheNextPodWithThePortStay(t *testing.T) {
	network(t, func(n Network) error {
		return errors.Join(
			inUse(n),
			removeElements(n),
			endRecord(n),
			n.Publish(owner("next"), datagrams(8053, "10.1.0.4")),
			conntracktest.Send(8053),
			conntracktest.Expect(map[uint16]int{8053: 1}),
			withdraw(n, owner("a")),
			conntracktest.Expect(map[uint16]int{8053: 1}),
		)
	})
}
