package rtnl_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	oracle "github.com/vishvananda/netlink"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/rtnl/rtnltest"
	"github.com/trivet-node/trivet/cni/sysctl"
)

func TestListThatTheKernelCannotMakeIsAnError(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		if have, err := c.Addresses(4711); !netlink.IsNotExist(err) {
			t.Errorf("addresses of an interface that does not exist: %v, %v", have, err)
		}
		return nil
	})
}

// mac and peerMAC are those of a veth.
var (
	mac     = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	peerMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// veth makes bridge br0 and veth port0, whose peer is in the namespace too, and returns the index of the
// bridge.
func veth(c *rtnl.Conn) (bridge int, err error) {
	if err := c.Must(rtnl.NewBridge("br0", net.HardwareAddr{2, 0, 0, 0, 0, 9}, 1400)); err != nil {
		return 0, err
	}

	link, err := c.LinkByName("br0")
	if err != nil {
		return 0, err
	}

	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return 0, err
	}
	defer func() { _ = own.Close() }()

	return link.Index, c.Must(
		rtnl.NewVeth(rtnl.Veth{
			Name:          "port0",
			Master:        link.Index,
			MTU:           1300,
			MAC:           mac,
			PeerName:      "peer0",
			PeerMAC:       peerMAC,
			PeerNamespace: int(own.Fd()),
		}),
		rtnl.SetPort("port0", "an alias", rtnl.Port{Hairpin: true, Isolated: true}),
	)
}

func TestWhatIsMadeIsWhatAnotherReaderSees(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		bridge, err := veth(c)
		if err != nil {
			return err
		}

		port, err := oracle.LinkByName("port0")
		if err != nil {
			return err
		}

		peer, err := oracle.LinkByName("peer0")
		if err != nil {
			return err
		}

		a := port.Attrs()
		if port.Type() != "veth" || a.MasterIndex != bridge || a.MTU != 1300 || a.Alias != "an alias" ||
			a.HardwareAddr.String() != mac.String() || a.ParentIndex != peer.Attrs().Index {
			t.Errorf("port %+v", a)
		}

		if peer.Attrs().HardwareAddr.String() != peerMAC.String() || peer.Attrs().MTU != 1300 {
			t.Errorf("peer %+v", peer.Attrs())
		}

		flags, err := oracle.LinkGetProtinfo(port)
		if err != nil {
			return err
		}
		if !flags.Hairpin || !flags.Isolated {
			t.Errorf("flags %+v", flags)
		}

		return nil
	})
}

func TestAnInterfaceIgnoresRedirects(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		if _, err := veth(c); err != nil {
			return err
		}
		link, err := c.LinkByName("peer0")
		if err != nil {
			return err
		}

		const name = "net/ipv4/conf/peer0/accept_redirects"
		before := sysctl.Get(name)
		err = c.Must(rtnl.IgnoreRedirects(link.Index))
		if now := sysctl.Get(name); before != "1" || now != "0" {
			t.Errorf("%s was %q and is %q", name, before, now)
		}
		return err
	})
}

func TestALinkIsReadWithItsPortAndPeer(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		bridge, err := veth(c)
		if err != nil {
			return err
		}

		port, err := c.LinkByName("port0")
		if err != nil {
			return err
		}

		peer, err := c.LinkByIndex(port.Peer)
		if err != nil {
			return err
		}

		if port.Kind != rtnl.KindVeth || port.Master != bridge || !port.Up || port.Port == nil ||
			*port.Port != (rtnl.Port{Hairpin: true, Isolated: true}) || port.Alias != "an alias" {
			t.Errorf("port %+v", port)
		}

		if peer.Name != "peer0" || peer.Port != nil || peer.Up || peer.Peer != port.Index {
			t.Errorf("peer %+v", peer)
		}

		if err := c.Must(rtnl.Discard("port0", 7)); err != nil {
			return err
		}

		port, err = c.LinkByName("port0")
		if err != nil || port.Up || port.Master != 0 || port.Group != 7 {
			t.Errorf("cut off: %+v, %v", port, err)
		}

		for range 2 {
			if err := c.EnsureNoLink("port0"); err != nil {
				t.Error(err)
			}
		}

		return nil
	})
}

func TestAddressesAreWhatAnotherReaderSees(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		bridge, err := bridgeWithAddresses(c)
		if err != nil {
			return err
		}

		link, err := oracle.LinkByIndex(bridge)
		if err != nil {
			return err
		}

		addresses, err := oracle.AddrList(link, oracle.FAMILY_V4)
		if err != nil || len(addresses) != 1 || addresses[0].IPNet.String() != "10.1.0.1/24" ||
			addresses[0].Broadcast.String() != "10.1.0.255" {
			t.Errorf("addresses %+v, %v", addresses, err)
		}

		return nil
	})
}

func TestANeighbourIsWhatAnotherReaderSees(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		bridge, err := bridgeWithAddresses(c)
		if err != nil {
			return err
		}

		peer, err := c.LinkByName("peer0")
		if err != nil {
			return err
		}
		if err := c.Must(rtnl.SetUp(peer.Index)); err != nil {
			return err
		}

		// The kernel drops all neighbours of the bridge once, when it notices that its carrier has changed.
		var neighbours []oracle.Neigh
		for range 100 {
			err := c.Must(rtnl.SetNeighbour(bridge, netip.MustParseAddr("10.1.0.7"), mac))
			if err != nil {
				return err
			}
			if neighbours, err = oracle.NeighList(bridge, oracle.FAMILY_V4); err != nil {
				return err
			}

			isOurs := func(n oracle.Neigh) bool {
				return n.IP.String() == "10.1.0.7" && n.HardwareAddr.String() == mac.String()
			}
			if slices.ContainsFunc(neighbours, isOurs) {
				return nil
			}
		}

		t.Errorf("neighbours %+v", neighbours)
		return nil
	})
}

// bridgeWithAddresses makes the bridge and gives it 10.1.0.1/24 and fd01::1/64.
func bridgeWithAddresses(c *rtnl.Conn) (index int, err error) {
	if index, err = veth(c); err != nil {
		return 0, err
	}
	return index, c.Must(
		rtnl.NewAddress(index, netip.MustParsePrefix("10.1.0.1/24"), rtnl.NoDAD),
		rtnl.NewAddress(index, netip.MustParsePrefix("fd01::1/64"), rtnl.NoDAD),
	)
}

func TestARouteIsWhatAnotherReaderSees(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		bridge, err := bridgeWithAddresses(c)
		if err != nil {
			return err
		}

		err = c.Must(rtnl.AddRoute(rtnl.Route{
			Dst:      netip.MustParsePrefix("10.8.0.0/16"),
			Gateway:  netip.MustParseAddr("10.1.0.9"),
			Index:    bridge,
			MTU:      1200,
			AdvMSS:   1100,
			Priority: 5,
			Protocol: 117,
		}))
		if err != nil {
			return err
		}

		ours := &oracle.Route{Protocol: 117}
		routes, err := oracle.RouteListFiltered(oracle.FAMILY_V4, ours, oracle.RT_FILTER_PROTOCOL)
		if err != nil {
			return err
		}
		if len(routes) != 1 {
			t.Fatalf("routes %+v", routes)
		}

		const format = "%s via %s dev %d mtu %d advmss %d metric %d"
		want := fmt.Sprintf(format, "10.8.0.0/16", "10.1.0.9", bridge, 1200, 1100, 5)
		r := routes[0]
		got := fmt.Sprintf(format, r.Dst, r.Gw, r.LinkIndex, r.MTU, r.AdvMSS, r.Priority)
		if got != want {
			t.Errorf("route %s, want %s", got, want)
		}

		return nil
	})
}

// In IPv6 a second route to one destination is shown as a next hop of the first.
func TestEachNextHopOfADestinationIsFound(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		bridge, err := bridgeWithAddresses(c)
		if err != nil {
			return err
		}

		route := func(gateway string) rtnl.Route {
			return rtnl.Route{
				Dst:     netip.MustParsePrefix("fd08::/64"),
				Gateway: netip.MustParseAddr(gateway),
				Index:   bridge,
			}
		}
		if err := c.Must(rtnl.NewRoute(route("fd01::9")), rtnl.NewRoute(route("fd01::8"))); err != nil {
			return err
		}

		for gateway, want := range map[string]bool{
			"fd01::9": true,
			"fd01::8": true,
			"fd01::7": false,
		} {
			if there, err := c.HasRoute(route(gateway)); err != nil || there != want {
				t.Errorf("route through %s: %v, %v", gateway, there, err)
			}
		}

		return nil
	})
}

func TestRoutesAreFoundByProtocol(t *testing.T) {
	rtnltest.Host(t, func(c *rtnl.Conn) error {
		bridge, err := bridgeWithAddresses(c)
		if err != nil {
			return err
		}

		gateway := rtnl.Route{
			Dst:      netip.MustParsePrefix("fd08::/64"),
			Gateway:  netip.MustParseAddr("fd01::9"),
			Index:    bridge,
			Priority: 117,
			Protocol: 117,
		}

		unreachable := rtnl.Route{
			Dst:         netip.MustParsePrefix("10.9.0.0/16"),
			Unreachable: true,
			Priority:    7,
			Protocol:    117,
		}

		other := rtnl.Route{
			Dst:     netip.MustParsePrefix("10.7.0.0/16"),
			Gateway: netip.MustParseAddr("10.1.0.9"),
			Index:   bridge,
		}

		err = c.Must(rtnl.AddRoute(gateway), rtnl.AddRoute(unreachable), rtnl.AddRoute(other))
		if err != nil {
			return err
		}
		if err := c.Must(rtnl.AddRoute(gateway)); !netlink.IsExist(err) {
			t.Errorf("the same route again: %v", err)
		}

		found, err := c.Routes(117)
		if err != nil || len(found) != 2 || found[0].Dst != unreachable.Dst || !found[0].Unreachable ||
			found[1].Dst != gateway.Dst || found[1].Gateway != gateway.Gateway {
			t.Errorf("routes %+v, %v", found, err)
		}

		for _, r := range found {
			if err := c.Must(rtnl.DeleteRoute(r)); err != nil {
				t.Error(err)
			}
			if err := c.Must(rtnl.DeleteRoute(r)); !netlink.IsNotExist(err) {
				t.Errorf("a second time: %v", err)
			}
		}

		if left, err := c.Routes(117); err != nil || len(left) != 0 {
			t.Errorf("left %+v, %v", left, err)
		}

		return nil
	})
}
