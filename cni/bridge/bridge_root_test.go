package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/rtnl/rtnltest"
	"github.com/trivet-node/trivet/internal/testenv"
)

var config = Config{
	Network:   "test",
	Name:      "br0",
	MTU:       1400,
	IsGateway: true,
	Port:      rtnl.Port{Hairpin: true},
}

// attachment is that of a container with a last byte in its addresses.
func attachment(t *testing.T, id string, v4, v6 string) Attachment {
	t.Helper()
	return Attachment{
		Owner: ipam.Owner{ContainerID: id, IfName: "eth0"},
		Netns: testenv.Netns(t),
		MTU:   1400,
		Addresses: []Address{
			address(v4, "10.1.0.1"),
			address(v6, "fd01::1"),
		},
		Routes: []rtnl.Route{{
			Dst:     netip.MustParsePrefix("0.0.0.0/0"),
			Gateway: netip.MustParseAddr("10.1.0.1"),
		}},
	}
}

func TestWhatAttachMakesPassesCheckUntilItIsDetached(t *testing.T) {
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		for name, c := range map[string]Config{"neighbours": config, "hostRouted": hostRouted(config)} {
			a := attachment(t, name, "10.1.0.9/24", "fd01::9/64")
			ends, err := Attach(host, c, a)
			if err != nil {
				return err
			}
			if err := Check(host, c, a); err != nil {
				t.Errorf("%s: %v", name, err)
			}

			if ends.Bridge.Name != "br0" || ends.Pod.Name != "eth0" || ends.Host.MTU != 1400 ||
				!IsAttached(host, "test", a.Owner) {
				t.Errorf("%s: %+v", name, ends)
			}

			for i, want := range []bool{true, false} {
				there, err := Detach(host, "test", a.Owner, false)
				if err != nil || there != want {
					t.Errorf("%s: detach %d: %v, %v", name, i, there, err)
				}
			}

			if Check(host, c, a) == nil || IsAttached(host, "test", a.Owner) {
				t.Errorf("%s: it is still there", name)
			}
		}

		return nil
	})
}

func hostRouted(c Config) Config {
	c.HostRouted = true
	return c
}

func TestAnInterfaceThatIsThereAlreadyIsLeftAlone(t *testing.T) {
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		a := attachment(t, "pod", "10.1.0.9/24", "fd01::9/64")
		if _, err := Attach(host, config, a); err != nil {
			return err
		}

		_, err := Attach(host, config, a)
		if err == nil || !strings.Contains(err.Error(), "interface eth0 of container pod is there already") {
			t.Errorf("the same container again: %v", err)
		}

		other := a
		other.Owner.ContainerID = "other"
		_, err = Attach(host, config, other)
		if err == nil || !strings.Contains(err.Error(), "is there already in network namespace") {
			t.Errorf("another container in the same namespace: %v", err)
		}

		return Check(host, config, a)
	})
}

// What is in the way of a veth may go, and something else may come, while ADD looks what it is.
func TestWhatIsInTheWayOfAVethMayChangeWhileAddLooks(t *testing.T) {
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		a := attachment(t, "pod", "10.1.0.9/24", "fd01::9/64")
		v := NewPair("test", a)
		there := func() error {
			v := v
			v.PeerName = "other"
			return createVeth(host, v, nil)
		}
		gone := func() error { return host.EnsureNoLink(v.Name) }
		nothing := func() error { return nil }

		for _, c := range []struct {
			what          string
			before, after []func() error // of each try
			want          string
		}{
			{"it goes", []func() error{there, nothing}, []func() error{gone, nothing}, ""},
			{
				"it goes, and another ADD makes one",
				[]func() error{there, there}, []func() error{gone, nothing},
				"interface eth0 of container pod is there already (host's end " + v.Name + ")",
			},
		} {
			try := 0
			err := connect(host, a, v.Name, func() error {
				err := c.before[try]()
				if err == nil {
					err = createVeth(host, v, nil)
				}
				err = errors.Join(err, c.after[try]())
				try++
				return err
			})
			if got := fmt.Sprint(err); c.want != got && (c.want != "" || err != nil) {
				t.Errorf("%s: %v", c.what, err)
			}
			if err := gone(); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestAnInterfaceThatWasCutOffGivesWayAndIsGarbage(t *testing.T) {
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		a := attachment(t, "pod", "10.1.0.9/24", "fd01::9/64")
		for range 2 {
			if _, err := Attach(host, config, a); err != nil {
				return err
			}
			if _, err := Detach(host, "test", a.Owner, true); err != nil {
				return err
			}
			if IsAttached(host, "test", a.Owner) {
				t.Error("an interface that was cut off counts as attached")
			}
		}

		if err := Keep(host, "test", func(string) bool { return true }); err != nil {
			return err
		}

		links, err := host.Links()
		if len(links) != 2 {
			t.Errorf("left beside lo and br0: %+v", links)
		}

		return err
	})
}

func TestAnInterfaceThatWasCutOffIsSweptWhenItsNamespaceStays(t *testing.T) {
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		gone := attachment(t, "gone", "10.1.0.9/24", "fd01::9/64")
		runs := attachment(t, "runs", "10.1.0.10/24", "fd01::10/64")
		for _, a := range []Attachment{gone, runs} {
			if _, err := Attach(host, config, a); err != nil {
				return err
			}
		}

		if _, err := Detach(host, "test", gone.Owner, true); err != nil {
			return err
		}

		var pending map[int]bool
		for pass, want := range []int{4, 4, 3} {
			links, err := host.Links()
			if err != nil || len(links) != want {
				t.Errorf("before pass %d: %d interfaces, %v, want %d", pass, len(links), err, want)
			}
			if pending, err = Sweep(host, "test", pending); err != nil {
				return err
			}
		}

		return Check(host, config, runs)
	})
}

func TestAttachThatFailsInThePodLeavesNoVeth(t *testing.T) {
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		a := attachment(t, "pod", "10.1.0.9/24", "fd01::9/64")
		// Nothing leads to this gateway.
		a.Routes = []rtnl.Route{{
			Dst:     netip.MustParsePrefix("192.0.2.0/24"),
			Gateway: netip.MustParseAddr("198.51.100.1"),
		}}
		if _, err := Attach(host, config, a); err == nil {
			t.Error("a route through a gateway that is out of reach")
		}

		links, err := host.Links()
		if len(links) != 2 {
			t.Errorf("left beside lo and br0: %+v", links)
		}

		return err
	})
}

func TestAnotherGatewayIsRefusedOrReplaced(t *testing.T) {
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		if _, err := ensure(host, config, []Address{address("10.7.0.9/24", "10.7.0.1")}); err != nil {
			return err
		}

		wanted := []Address{address("10.1.0.9/24", "10.1.0.1")}
		if _, err := ensure(host, config, wanted); err == nil ||
			Usable(host, config, [][]Address{wanted}) == nil {
			t.Errorf("a second gateway: %v", err)
		}

		force := config
		force.ForceAddress = true
		link, err := ensure(host, force, wanted)
		if err != nil {
			return err
		}

		have, err := host.Addresses(link.Index)
		if len(have) != 1 || have[0].String() != "10.1.0.1/24" {
			t.Errorf("the bridge has %v", have)
		}

		return err
	})
}

func TestABridgeMovesWhenItsLastPodHasGone(t *testing.T) {
	rtnltest.Host(t, func(host *rtnl.Conn) error {
		gateways := []Address{address("10.7.0.0/24", "10.7.0.1"), address("fd07::/64", "fd07::1")}
		if moved, err := Move(host, config, gateways); err != nil || len(moved) != 0 {
			t.Errorf("a bridge that does not exist: %v, %v", moved, err)
		}

		a := attachment(t, "pod", "10.1.0.9/24", "fd01::9/64")
		if _, err := Attach(host, config, a); err != nil {
			return err
		}

		moved, err := Move(host, config, gateways)
		if err == nil || len(moved) != 0 ||
			!strings.Contains(err.Error(), "for 1 pods that are still there") {
			t.Errorf("under a pod: %v, %v", moved, err)
		}

		if _, err := Detach(host, "test", a.Owner, false); err != nil {
			return err
		}

		moved, err = Move(host, config, gateways)
		if err != nil || len(moved) != 2 {
			t.Errorf("without pods: %v, %v", moved, err)
		}

		moved, err = Move(host, config, gateways)
		if len(moved) != 0 {
			t.Errorf("a second time: %v", moved)
		}

		return err
	})
}
