package overlay

import (
	"net/netip"
	"testing"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
)

func address(text string) netip.Addr { return netip.MustParseAddr(text) }

func TestPodsGetTheMTUThatTheTunnelsLeave(t *testing.T) {
	v4 := Tunnel{Local: address("192.0.2.1")}
	v6 := Tunnel{Local: address("fd99::1")}
	for _, c := range []struct {
		name    string
		tunnels []Tunnel
		mtu     int
		want    int
	}{
		{"no tunnel", nil, 1500, 1500},
		{"IPv4", []Tunnel{v4}, 1500, 1450},
		{"IPv6", []Tunnel{v6}, 1500, 1430},
		{"both", []Tunnel{v4, v6}, 9000, 8930},
		{"not known", []Tunnel{v4}, 0, 0},
		{"IPv6 needs 1280", []Tunnel{v4}, 1300, 1280},
	} {
		if got := PodMTU(c.tunnels, c.mtu); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestEndsOfTunnelsHaveMACAddressesThatAllNodesKnow(t *testing.T) {
	seen := map[[6]byte]string{}
	for _, text := range []string{"", "a", "b", "worker-1", "worker-2"} {
		mac := MACOf(text)
		if mac[0]&3 != 2 {
			t.Errorf("%s: %x is not one of a single interface that is locally administered", text, mac)
		}
		if other := seen[mac]; other != "" {
			t.Errorf("%s and %s have the same", text, other)
		}
		seen[mac] = text
	}

	// All versions of this program have to agree.
	if got := MACOf("worker-1"); got != [6]byte{0xae, 0x55, 0x62, 0x11, 0x60, 0x46} {
		t.Errorf("worker-1 has %x", got)
	}
	if got := linkLocal([6]byte{2, 0x11, 0x22, 0x33, 0x44, 0x55}); got != address("fe80::11:22ff:fe33:4455") {
		t.Errorf("link-local address %s", got)
	}
}

// Two CIDRs of a family may share a gateway, which is one neighbour.
func TestAPeerIsOneForwardingEntryAndItsGatewaysAreNeighbours(t *testing.T) {
	tunnel := Tunnel{
		Local: address("192.0.2.1"),
		Peers: []Peer{{
			Address: address("192.0.2.2"),
			Pods: []netip.Prefix{
				netip.MustParsePrefix("10.244.2.0/24"),
				netip.MustParsePrefix("fd00:2::/64"),
				netip.MustParsePrefix("fd00:3::/64"),
			},
		}},
	}
	neighbours, remotes := tunnel.neighbours()
	changes := diff(nil, neighbours, neighbourText, rtnlMessage, rtnlMessage)
	if len(remotes) != 1 || len(changes) != 2 || len(tunnel.routes(7)) != 3 {
		t.Errorf("remotes %v, neighbours %v, routes %v", remotes, changes, tunnel.routes(7))
	}
	for _, r := range tunnel.routes(7) {
		if r.Dst.Addr().Is4() != r.Gateway.Is4() || r.OnLink != r.Dst.Addr().Is4() || r.Index != 7 {
			t.Errorf("route %+v", r)
		}
	}
}

func rtnlMessage(n rtnl.Neighbour) *netlink.Message { return rtnl.KeepNeighbour(7, n) }
