package routing

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/rtnl"
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func addresses(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

// self is this node, and lan what it is connected to.
var (
	self = podcidr.Node{
		Name:      "self",
		PodCIDRs:  prefixes("10.244.0.0/24", "fd00:244::/64"),
		Addresses: addresses("10.99.0.1", "fd99::1"),
	}
	lan = []rtnl.InterfaceAddress{
		{Index: 2, Prefix: netip.MustParsePrefix("10.99.0.1/16")},
		{Index: 2, Prefix: netip.MustParsePrefix("fd99::1/64")},
		{Index: 3, Prefix: netip.MustParsePrefix("10.99.7.1/24")},
		{Index: 4, Prefix: netip.MustParsePrefix("10.244.0.1/24")},
		{Index: 5, Prefix: netip.MustParsePrefix("172.16.0.1/12")},
	}
)

// peers are Nodes as another one sees them, and what route they get.
var peers = []struct {
	name      string
	pods      string
	addresses []netip.Addr
	// want are routes as GATEWAY dev INDEX, or why there is none.
	want string
}{
	{"same network", "10.244.1.0/24", addresses("10.99.0.2"), "10.99.0.2 dev 2"},
	{"same network, IPv6", "fd00:244:0:1::/64", addresses("10.99.0.2", "fd99::2"), "fd99::2 dev 2"},
	{"the most specific network wins", "10.244.1.0/24", addresses("10.99.7.2"), "10.99.7.2 dev 3"},
	{
		"the second address is on link",
		"10.244.1.0/24",
		addresses("192.0.2.1", "10.99.0.2"),
		"10.99.0.2 dev 2",
	},
	{
		"behind a router",
		"10.244.1.0/24",
		addresses("192.0.2.1"),
		"none of its addresses [192.0.2.1] is on a network of this node, and tunnels are switched off",
	},
	{"no address of the family", "fd00:1::/64", addresses("10.99.0.2"), "none of its addresses"},
	{"an address of this node", "10.244.1.0/24", addresses("10.99.0.1"), "none of its addresses"},
	{
		"this node's pods",
		"10.244.0.128/25",
		addresses("10.99.0.2"),
		"it overlaps this node's pod CIDR 10.244.0.0/24",
	},
	{
		"the node network",
		"10.99.0.0/16",
		addresses("10.99.0.2"),
		"this node is itself on the network 10.99.0.0/16",
	},
	{
		"a part of a larger network of this node",
		"172.16.5.0/24",
		addresses("10.99.0.2"),
		"10.99.0.2 dev 2",
	},
	{
		"a part of the node network with this node's address",
		"10.99.7.0/25",
		addresses("10.99.0.2"),
		"it holds this node's address 10.99.7.1",
	},
	{
		"a part of the node network with a node's address",
		"10.99.3.0/24",
		addresses("10.99.3.2"),
		"it holds node b's address 10.99.3.2",
	},
	{
		"a part of a network with its router",
		"172.16.9.0/24",
		addresses("10.99.0.2"),
		"it holds the router 172.16.9.254",
	},
}

func TestDirectRoutes(t *testing.T) {
	for _, c := range peers {
		t.Run(c.name, func(t *testing.T) {
			peer := podcidr.Node{Name: "b", PodCIDRs: prefixes(c.pods), Addresses: c.addresses}
			all := []podcidr.Node{peer, self}
			plan := NewPlan(Situation{
				Own:     self,
				Nodes:   all,
				Local:   lan,
				Routers: addresses("172.16.9.254"),
				Overlay: Never,
			})
			got := strings.Join(plan.Notes, "\n")
			for _, r := range plan.Routes[len(self.PodCIDRs):] {
				got = fmt.Sprintf("%s dev %d", r.Gateway, r.Index)
				if r.Dst.String() != c.pods || r.Protocol != protocol || r.Priority != peerPriority {
					t.Errorf("route %+v", r)
				}
			}

			reason := strings.TrimPrefix(got, "node b: no route to its pods "+c.pods+": ")
			if !strings.HasPrefix(reason, c.want) {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestOwnPodAddressesThatNoPodHasAreUnreachable(t *testing.T) {
	late := podcidr.Node{Name: "late", Addresses: addresses("10.99.0.2")}
	plan := NewPlan(Situation{Own: self, Nodes: []podcidr.Node{self, late}, Local: lan})
	if len(plan.Routes) != 2 || len(plan.Notes) != 0 {
		t.Fatalf("routes %+v, notes %q", plan.Routes, plan.Notes)
	}
	for i, r := range plan.Routes {
		if r.Dst != self.PodCIDRs[i] || !r.Unreachable || r.Priority != unreachablePriority {
			t.Errorf("route %+v", r)
		}
	}
}

func TestDifferenceIgnoresWhatTheKernelAdds(t *testing.T) {
	peer := rtnl.Route{
		Dst:      netip.MustParsePrefix("10.244.1.0/24"),
		Gateway:  netip.MustParseAddr("10.99.0.2"),
		Index:    2,
		Priority: peerPriority,
		Protocol: protocol,
	}

	own := rtnl.Route{
		Dst:         netip.MustParsePrefix("fd00::/64"),
		Unreachable: true,
		Priority:    unreachablePriority,
		Protocol:    protocol,
	}

	wanted := []rtnl.Route{peer, own}

	// The kernel shows tables and scopes, and IPv6 that what is unreachable is so by lo.
	shownPeer := peer
	shownPeer.Table = 254
	shownOwn := own
	shownOwn.Index = 1
	shownOwn.Scope = 253
	stale, missing := difference([]rtnl.Route{shownPeer, shownOwn}, wanted)
	if len(stale)+len(missing) > 0 {
		t.Errorf("stale %+v, missing %+v", stale, missing)
	}

	moved := shownPeer
	moved.Gateway = netip.MustParseAddr("10.99.0.3")
	stale, missing = difference([]rtnl.Route{moved, shownOwn}, wanted)
	if d := cmp.Diff(fmt.Sprint([]rtnl.Route{moved}), fmt.Sprint(stale)); d != "" {
		t.Errorf("stale: %s", d)
	}
	if d := cmp.Diff(fmt.Sprint([]rtnl.Route{peer}), fmt.Sprint(missing)); d != "" {
		t.Errorf("missing: %s", d)
	}

	stale, missing = difference([]rtnl.Route{shownPeer, shownOwn}, nil)
	if len(stale) != 2 || len(missing) != 0 {
		t.Errorf("nothing wanted: stale %+v, missing %+v", stale, missing)
	}
}

// collision are names of Nodes whose tunnels have the same MAC address.
var collision = [2]string{"node-57127", "node-3916724"}

func TestTunnels(t *testing.T) {
	node := func(name string, created int64, pods string, of ...string) podcidr.Node {
		return podcidr.Node{
			Name:      name,
			Created:   time.Unix(created, 0),
			PodCIDRs:  prefixes(pods),
			Addresses: addresses(of...),
		}
	}
	near := node("near", 1, "10.244.1.0/24", "10.99.0.2", "192.0.2.77")
	first := node(collision[0], 2, "10.244.2.0/24", "127.0.0.1", "192.0.2.2", "fd88::2")
	second := node(collision[1], 3, "10.244.3.0/24", "192.0.2.3")
	late := podcidr.Node{Name: "late", Addresses: addresses("192.0.2.4")}
	plan := NewPlan(Situation{
		Own:     self,
		Nodes:   []podcidr.Node{second, first, near, late, self},
		Local:   lan,
		Overlay: Auto,
	})

	if len(plan.Tunnels) != 1 || len(plan.Tunnels[0].Peers) != 1 || plan.Tunnels[0].Name != "self" {
		t.Fatalf("tunnels %+v", plan.Tunnels)
	}
	peer := plan.Tunnels[0].Peers[0]
	if peer.Name != first.Name || peer.Address != first.Addresses[1] {
		t.Errorf("peer %+v", peer)
	}
	const why = "its tunnels have the MAC address of those of node node-57127"
	if len(plan.Notes) != 1 || !strings.Contains(plan.Notes[0], why) {
		t.Errorf("notes %q", plan.Notes)
	}

	// Ends that are not used here are those of tunnels between others.
	const want = "[10.99.0.1 192.0.2.3 192.0.2.2 fd88::2 10.99.0.2 192.0.2.77]"
	if got := fmt.Sprint(plan.Allowed); got != want {
		t.Errorf("allowed %s, want %s", got, want)
	}

	made := ThroughTunnels([]rtnl.Route{{Dst: peer.Pods[0]}})[0]
	if made.Priority <= 1024 || made.Priority >= unreachablePriority || made.Protocol != protocol {
		t.Errorf("route %+v", made)
	}
}

func FuzzPlan(f *testing.F) {
	f.Add("10.244.1.0/24", "10.99.0.2")
	f.Add("fd00:244::/64", "fd99::1")
	f.Add("0.0.0.0/0", "10.99.0.1")
	local := lan[:2]
	f.Fuzz(func(t *testing.T, cidr, address string) {
		pods, err := netip.ParsePrefix(cidr)
		if err != nil || pods.Addr().Is4In6() {
			return
		}

		a, err := netip.ParseAddr(address)
		if err != nil {
			return
		}

		node := podcidr.Node{
			Name:      "b",
			PodCIDRs:  []netip.Prefix{pods.Masked()},
			Addresses: []netip.Addr{a.WithZone("").Unmap()},
		}

		admitted, _ := podcidr.Rules{}.Admit(self, []podcidr.Node{self, node})
		plan := NewPlan(Situation{
			Own:     self,
			Nodes:   admitted,
			Local:   local,
			Overlay: Auto,
		})
		for _, tunnel := range plan.Tunnels {
			if a := tunnel.Peers[0].Address; !a.IsGlobalUnicast() || pods.Contains(a) {
				t.Fatalf("tunnel to %s for %s", a, pods)
			}
		}
		for _, r := range plan.Routes[len(self.PodCIDRs):] {
			if r.Dst.Bits() == 0 || r.Dst != r.Dst.Masked() || r.Index != 2 {
				t.Fatalf("route %+v", r)
			}
			if r.Dst.Addr().Is4() != r.Gateway.Is4() {
				t.Fatalf("route %+v through another family", r)
			}

			for _, l := range local {
				if r.Dst.Contains(l.Prefix.Addr()) {
					t.Fatalf("route %+v takes this node's address", r)
				}
			}

			for _, own := range self.PodCIDRs {
				if r.Dst.Overlaps(own) {
					t.Fatalf("route %+v takes this node's pods", r)
				}
			}
		}
	})
}
