package netd

import (
	"encoding/json"
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
	data, err := networkConfig(
		prefixes("10.244.1.0/24", "fd00:244:1::/64"),
		prefixes("10.244.0.0/16", "fd00:244::/48"),
		1450,
	)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Golden(t, "dualstack.conflist", string(data))
}

func TestPluginGetsItsPartOfTheList(t *testing.T) {
	list, err := networkConfig(prefixes("10.244.1.0/24"), nil, 0)
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

	if got["name"] != "trivet" || got["cniVersion"] != "1.1.0" || got["type"] != "trivet-cni" ||
		got["capabilities"] != nil || got["plugins"] != nil {
		t.Errorf("plugin gets %s", data)
	}
}

func TestPodNetworksAreTheClusterCIDRsOrAllNodesCIDRs(t *testing.T) {
	all := []podcidr.Node{{Name: "a", PodCIDRs: prefixes("10.244.10.0/24", "fd00::/64")},
		{Name: "b", PodCIDRs: prefixes("10.244.9.0/24")}, {Name: "c", PodCIDRs: prefixes("10.244.9.0/24")}}
	if got := texts(podNetworks(prefixes("10.244.0.0/16"), all)); !cmp.Equal(got, []string{"10.244.0.0/16"}) {
		t.Errorf("with cluster CIDRs: %v", got)
	}
	if got := texts(podNetworks(nil, all)); !cmp.Equal(
		got,
		[]string{"10.244.9.0/24", "10.244.10.0/24", "fd00::/64"},
	) {
		t.Errorf("without: %v", got)
	}
}

func TestWantedRoutes(t *testing.T) {
	own := podcidr.Node{Name: "self", PodCIDRs: prefixes("10.244.0.0/24", "fd00:244::/64"),
		Addresses: addresses("10.99.0.1", "fd99::1")}
	local := []rtnl.InterfaceAddress{{
		Index:  2,
		Prefix: netip.MustParsePrefix("10.99.0.1/16"),
	}, {Index: 2, Prefix: netip.MustParsePrefix("fd99::1/64")},
		{
			Index:  3,
			Prefix: netip.MustParsePrefix("10.99.7.1/24"),
		}, {
			Index:  4,
			Prefix: netip.MustParsePrefix("10.244.0.1/24"),
		}, {Index: 5, Prefix: netip.MustParsePrefix("172.16.0.1/12")}}

	for _, c := range []struct {
		name string
		peer podcidr.Node
		want []string // "DST via GATEWAY dev INDEX"
		note string
	}{
		{"same network, both families", podcidr.Node{Name: "b",
			PodCIDRs:  prefixes("10.244.1.0/24", "fd00:244:0:1::/64"),
			Addresses: addresses("10.99.0.2", "fd99::2")},
			[]string{"10.244.1.0/24 via 10.99.0.2 dev 2", "fd00:244:0:1::/64 via fd99::2 dev 2"}, ""},
		{"the most specific network wins", podcidr.Node{Name: "b", PodCIDRs: prefixes("10.244.1.0/24"),
			Addresses: addresses("10.99.7.2")},
			[]string{"10.244.1.0/24 via 10.99.7.2 dev 3"}, ""},
		{"the second address is on link", podcidr.Node{Name: "b", PodCIDRs: prefixes("10.244.1.0/24"),
			Addresses: addresses("192.0.2.1", "10.99.0.2")},
			[]string{"10.244.1.0/24 via 10.99.0.2 dev 2"}, ""},
		{"behind a router", podcidr.Node{Name: "b", PodCIDRs: prefixes("10.244.1.0/24"),
			Addresses: addresses("192.0.2.1")},
			nil, "node b: no route to its pods 10.244.1.0/24: none of its addresses [192.0.2.1] is on a " +
				"network of this node, and there is no overlay"},
		{"no address of the family", podcidr.Node{Name: "b", PodCIDRs: prefixes("fd00:1::/64"),
			Addresses: addresses("10.99.0.2")}, nil, "none of its addresses"},
		{"an address of this node", podcidr.Node{Name: "b", PodCIDRs: prefixes("10.244.1.0/24"),
			Addresses: addresses("10.99.0.1")}, nil, "none of its addresses"},
		{"this node's pods", podcidr.Node{Name: "b", PodCIDRs: prefixes("10.244.0.128/25"),
			Addresses: addresses("10.99.0.2")}, nil, "overlaps this node's pod CIDR 10.244.0.0/24"},
		{"the node network", podcidr.Node{Name: "b", PodCIDRs: prefixes("10.99.0.0/16"),
			Addresses: addresses("10.99.0.2")}, nil, "this node is itself on the network 10.99.0.0/16"},
		{"a part of a larger network of this node",
			podcidr.Node{Name: "b", PodCIDRs: prefixes("172.16.5.0/24"), Addresses: addresses("10.99.0.2")},
			[]string{"172.16.5.0/24 via 10.99.0.2 dev 2"}, ""},
		{"a part of the node network with this node's address",
			podcidr.Node{Name: "b", PodCIDRs: prefixes("10.99.7.0/25"), Addresses: addresses("10.99.0.2")},
			nil, "it holds this node's address 10.99.7.1"},
		{"a part of the node network with a node's address",
			podcidr.Node{Name: "b", PodCIDRs: prefixes("10.99.3.0/24"), Addresses: addresses("10.99.3.2")},
			nil, "it holds node b's address 10.99.3.2"},
		{"a part of a network with its router",
			podcidr.Node{Name: "b", PodCIDRs: prefixes("172.16.9.0/24"), Addresses: addresses("10.99.0.2")},
			nil, "it holds the router 172.16.9.254"},
		{"no pod CIDR yet", podcidr.Node{Name: "b", Addresses: addresses("10.99.0.2")}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			near := newVicinity([]podcidr.Node{c.peer, own}, local)
			near.routers = addresses("172.16.9.254")
			routes, notes := wantedRoutes(own, []podcidr.Node{c.peer, own}, near)
			if len(routes) < 2 || !routes[0].Unreachable || !routes[1].Unreachable ||
				routes[0].Priority != unreachablePriority {
				t.Fatalf("own pod CIDRs: %+v", routes)
			}

			var got []string
			for _, r := range routes[2:] {
				if r.Protocol != Protocol || r.Priority != peerPriority {
					t.Errorf("route %+v", r)
				}

				got = append(got, r.Dst.String()+" via "+r.Gateway.String()+" dev "+string(rune('0'+r.Index)))
			}

			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}

			if all := strings.Join(notes, "\n"); (c.note == "") != (all == "") ||
				!strings.Contains(all, c.note) {
				t.Errorf("notes %q, want %q", all, c.note)
			}
		})
	}
}

func TestDifferenceIgnoresWhatTheKernelFillsIn(t *testing.T) {
	pods, own := netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00::/64")
	wanted := []rtnl.Route{{
		Dst:      pods,
		Gateway:  netip.MustParseAddr("10.99.0.2"),
		Index:    2,
		Priority: peerPriority,
		Protocol: Protocol,
	},
		{Dst: own, Unreachable: true, Priority: unreachablePriority, Protocol: Protocol}}

	have := []rtnl.Route{wanted[0], wanted[1]}

	// IPv6: unreachable dev lo
	have[1].Index = 1
	if stale, missing := difference(have, wanted); len(stale)+len(missing) > 0 {
		t.Errorf("stale %+v, missing %+v", stale, missing)
	}

	have[0].Gateway = netip.MustParseAddr("10.99.0.3")
	stale, missing := difference(have, wanted)
	if !cmp.Equal(len(stale), 1) || stale[0].Gateway.String() != "10.99.0.3" || len(missing) != 1 ||
		missing[0].Gateway.String() != "10.99.0.2" {
		t.Errorf("stale %+v, missing %+v", stale, missing)
	}

	if stale, missing := difference(have, nil); len(stale) != 2 || len(missing) != 0 {
		t.Errorf("nothing wanted: stale %+v, missing %+v", stale, missing)
	}
}

func TestNetworkThatRuntimesTakeFirstIsNamed(t *testing.T) {
	o := Options{ConfDir: t.TempDir(), ConfName: "10-trivet.conflist"}
	for _, name := range []string{
		"00-readme.txt",
		"10-trivet.conflist",
		"99-later.conflist",
		".tmp-10-trivet.conflist-1",
	} {
		if err := os.WriteFile(filepath.Join(o.ConfDir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if got := rivals(o); got != "" {
		t.Errorf("%s is taken for a rival", got)
	}
	if err := os.WriteFile(filepath.Join(o.ConfDir, "05-other.conf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := rivals(o); got != "05-other.conf" {
		t.Errorf("rival %q", got)
	}
}

func TestInstallReplacesAnotherPluginAndSweepsWhatAKilledRunLeft(t *testing.T) {
	dir := t.TempDir()
	from, path := filepath.Join(dir, "trivet-cni"), filepath.Join(dir, "bin", "trivet-cni")
	for _, content := range []string{"one", "two", "two"} {
		if err := os.WriteFile(from, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Install(from, path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "bin", ".tmp-trivet-cni-77"), []byte("half"), 0o600); err != nil {
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

	if err := Install(filepath.Join(dir, "absent"), path); err == nil ||
		!strings.Contains(err.Error(), path) {
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
	if !r.Ready() || !r.Alive(now.Add(stuck/2)) || r.Alive(now.Add(stuck)) {
		t.Error("a note is no error, and age tells whether it lives")
	}

	r.fail(nil)
	r.fail(os.ErrPermission)
	var text strings.Builder
	if _, err := r.WriteTo(&text); err != nil {
		t.Fatal(err)
	}

	want := "last sync 2026-11-23T21:00:00Z, took 1.5ms: 3 nodes, 2 routes\nerror: permission " +
		"denied\nnote: node c is far away\n"
	if text.String() != want || r.Ready() {
		t.Errorf("got %q", text.String())
	}
}

func FuzzWantedRoutes(f *testing.F) {
	f.Add("10.244.1.0/24", "10.99.0.2")
	f.Add("fd00:244::/64", "fd99::1")
	f.Add("0.0.0.0/0", "10.99.0.1")
	local := []rtnl.InterfaceAddress{
		{Index: 2, Prefix: netip.MustParsePrefix("10.99.0.1/16")},
		{Index: 2, Prefix: netip.MustParsePrefix("fd99::1/64")},
	}

	own := podcidr.Node{Name: "self", PodCIDRs: prefixes("10.244.0.0/24", "fd00:244::/64"),
		Addresses: addresses("10.99.0.1")}
	f.Fuzz(func(t *testing.T, cidr, address string) {
		pods, err := netip.ParsePrefix(cidr)
		a, err2 := netip.ParseAddr(address)
		if err != nil || err2 != nil || pods.Addr().Is4In6() {
			return
		}

		node := podcidr.Node{Name: "b", PodCIDRs: []netip.Prefix{pods.Masked()},
			Addresses: []netip.Addr{a.WithZone("").Unmap()}}
		admitted, _ := podcidr.Rules{}.Admit(own, []podcidr.Node{own, node})
		routes, _ := wantedRoutes(own, admitted, newVicinity(admitted, local))
		for _, r := range routes[2:] {
			if r.Dst.Bits() == 0 || r.Dst != r.Dst.Masked() || r.Dst.Overlaps(own.PodCIDRs[0]) ||
				r.Dst.Overlaps(own.PodCIDRs[1]) ||
				r.Dst.Contains(local[0].Prefix.Addr()) || r.Dst.Contains(local[1].Prefix.Addr()) ||
				r.Dst.Addr().Is4() != r.Gateway.Is4() || r.Index != 2 {
				t.Fatalf("route %+v", r)
			}
		}
	})
}
