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

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/internal/testenv"
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func TestConfigurationOfADualStackNode(t *testing.T) {
	data, err := network{
		name:        DefaultNetwork,
		bridge:      DefaultBridge,
		podCIDRs:    prefixes("10.244.1.0/24", "fd00:244:1::/64"),
		noMasq:      prefixes("10.244.0.0/16", "fd00:244::/48"),
		mtu:         1450,
		sourceGuard: true,
		policies:    true,
	}.configuration()
	if err != nil {
		t.Fatal(err)
	}
	testenv.Golden(t, "dualstack.conflist", string(data))
}

func TestAKernelWithoutGuardsIsANote(t *testing.T) {
	for _, c := range []struct {
		wanted  bool
		lacks   error
		guarded bool
		notes   int
	}{
		{true, nil, true, 0},
		{true, fmt.Errorf("the kernel lacks CONFIG_NET_CLS_BPF: %w", unix.ENOENT), false, 1},
		{false, nil, false, 0},
	} {
		d := Daemon{cfg: Config{SourceGuard: c.wanted}, noSourceGuard: c.lacks}
		var r Report
		if got := d.guardsSource(&r); got != c.guarded || len(r.Notes) != c.notes || len(r.Errors) != 0 {
			t.Errorf("%+v: %v, %q, %q", c, got, r.Notes, r.Errors)
		}
	}
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
