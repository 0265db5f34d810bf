package netd

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/testenv"
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

func TestConfigurationOfADualStackNode(t *testing.T) {
	data, err := network{
		name:     DefaultNetwork,
		bridge:   DefaultBridge,
		podCIDRs: prefixes("10.244.1.0/24", "fd00:244:1::/64"),
		noMasq:   prefixes("10.244.0.0/16", "fd00:244::/48"),
		mtu:      1450,
		policies: true,
	}.configuration()
	if err != nil {
		t.Fatal(err)
	}
	testenv.Golden(t, "dualstack.conflist", string(data))
}

func TestPluginGetsItsPartOfTheList(t *testing.T) {
	list, err := network{name: "cbr0", bridge: "cni0", podCIDRs: prefixes("10.244.1.0/24")}.configuration()
	if err != nil {
		t.Fatal(err)
	}

	data, err := pluginConfig(list)
	if err != nil {
		t.Fatal(err)
	}

	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}

	if got["name"] != "cbr0" || got["bridge"] != "cni0" || got["cniVersion"] != "1.1.0" ||
		got["type"] != "trivet-cni" || got["capabilities"] != nil || got["plugins"] != nil {
		t.Errorf("plugin gets %s", data)
	}
}

func TestPodNetworksAreTheClusterCIDRsOrAllNodesCIDRs(t *testing.T) {
	all := []podcidr.Node{
		{Name: "a", PodCIDRs: prefixes("10.244.10.0/24", "fd00::/64")},
		{Name: "b", PodCIDRs: prefixes("10.244.9.0/24")},
		{Name: "c", PodCIDRs: prefixes("10.244.9.0/24")},
	}

	known := texts(podNetworks(prefixes("10.244.0.0/16"), all))
	if d := cmp.Diff([]string{"10.244.0.0/16"}, known); d != "" {
		t.Errorf("with cluster CIDRs: %s", d)
	}

	unknown := texts(podNetworks(nil, all))
	if d := cmp.Diff([]string{"10.244.9.0/24", "10.244.10.0/24", "fd00::/64"}, unknown); d != "" {
		t.Errorf("without: %s", d)
	}
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
		"none of its addresses [192.0.2.1] is on a network of this node, and there is no overlay",
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

func TestWantedRoutes(t *testing.T) {
	for _, c := range peers {
		t.Run(c.name, func(t *testing.T) {
			peer := podcidr.Node{Name: "b", PodCIDRs: prefixes(c.pods), Addresses: c.addresses}
			all := []podcidr.Node{peer, self}
			near := newVicinity(all, lan)
			near.routers = addresses("172.16.9.254")

			routes, notes := wantedRoutes(self, all, near)
			got := strings.Join(notes, "\n")
			for _, r := range routes[len(self.PodCIDRs):] {
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
	routes, notes := wantedRoutes(self, []podcidr.Node{self, late}, newVicinity(nil, lan))
	if len(routes) != 2 || len(notes) != 0 {
		t.Fatalf("routes %+v, notes %q", routes, notes)
	}
	for i, r := range routes {
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

func TestNetworkThatRuntimesTakeFirstIsNamed(t *testing.T) {
	cfg := Config{ConfDir: t.TempDir(), ConfName: "10-trivet.conflist"}
	for _, name := range []string{
		"00-readme.txt",
		"10-trivet.conflist",
		"99-later.conflist",
		".tmp-10-trivet.conflist-1",
	} {
		if err := os.WriteFile(filepath.Join(cfg.ConfDir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if got := sortsBefore(cfg); got != "" {
		t.Errorf("%s is taken for a rival", got)
	}
	if err := os.WriteFile(filepath.Join(cfg.ConfDir, "05-other.conf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := sortsBefore(cfg); got != "05-other.conf" {
		t.Errorf("rival %q", got)
	}
}

func TestInstallReplacesAnotherPluginAndSweepsWhatAKilledRunLeft(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(dir, "trivet-cni")
	path := filepath.Join(dir, "bin", "trivet-cni")
	unfinished := filepath.Join(dir, "bin", ".tmp-trivet-cni-77")
	for _, content := range []string{"one", "two", "two"} {
		if err := os.WriteFile(from, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Install(from, path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(unfinished, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}

		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("installed %q, %v; want %q", got, err, content)
		}
	}

	if err := Install(from, path); err != nil {
		t.Fatal(err)
	}

	entries, err := os.ReadDir(filepath.Join(dir, "bin"))
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}

	err = Install(filepath.Join(dir, "absent"), path)
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("an absent plugin is installed: %v", err)
	}
}

func TestReportNamesErrorsAndNotes(t *testing.T) {
	now := time.Date(2026, 11, 23, 21, 0, 0, 0, time.UTC)
	r := Report{
		At:     now,
		Took:   1500 * time.Microsecond,
		Nodes:  3,
		Routes: 2,
		Notes:  []string{"node c is far away"},
	}
	if !r.Ready() || !r.Alive(now.Add(stuckAfter/2)) || r.Alive(now.Add(stuckAfter)) {
		t.Error("a note is an error, or a report does not age")
	}

	r.fail(nil)
	r.fail(os.ErrPermission)
	var text strings.Builder
	if _, err := r.WriteTo(&text); err != nil {
		t.Fatal(err)
	}

	const want = "last sync 2026-11-23T21:00:00Z, took 1.5ms: 3 nodes, 2 routes\n" +
		"error: permission denied\n" +
		"note: node c is far away\n"
	if text.String() != want || r.Ready() {
		t.Errorf("got %q", text.String())
	}
}

func FuzzWantedRoutes(f *testing.F) {
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
		routes, _ := wantedRoutes(self, admitted, newVicinity(admitted, local))
		for _, r := range routes[len(self.PodCIDRs):] {
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
