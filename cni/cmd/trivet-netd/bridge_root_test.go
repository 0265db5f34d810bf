package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
)

// The Node was deleted, and joins again with other pod CIDRs. The bridge has the former gateways.
func TestBridgeMovesToTheNewPodCIDRWhenNoPodOfTheOldOneLives(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.putOwn()
	w.start()
	w.awaitReport(200, "1 nodes")
	w.ip("link add trivet0 type bridge")
	w.ip("link set trivet0 up")
	addresses := func() string { return w.ip("-o addr show dev trivet0 scope global") }
	w.await("the gateways of a bridge that has none", func() bool {
		return strings.Contains(addresses(), "10.244.0.1/24") &&
			strings.Contains(addresses(), "fd00:244::1/64")
	})

	w.ip("link add pod0 master trivet0 type veth peer name pod1")
	w.api.put("a", []string{"10.244.5.0/24", "fd00:244:5::/64"}, []string{"10.99.0.1", "fd99::1"})
	w.awaitReport(503, "error: gateway of bridge trivet0: "+
		"it has [10.244.0.1/24] for 1 pods that are still there, and gets 10.244.5.1/24")
	if now := addresses(); !strings.Contains(now, "10.244.0.1/24") || strings.Contains(now, "10.244.5.1") {
		t.Errorf("the bridge of a pod has %s", now)
	}

	const moved = "10.244.5.0/24,fd00:244:5::/64 mtu 1400"
	w.await("new pods get no old addresses", func() bool { return w.subnets() == moved })

	w.ip("link del pod0")
	w.awaitReport(200, "1 nodes")
	now := addresses()
	for _, want := range []string{"10.244.5.1/24", "fd00:244:5::1/64"} {
		if !strings.Contains(now, want) {
			t.Errorf("the bridge does not have %s: %s", want, now)
		}
	}

	if strings.Contains(now, "10.244.0.1") || strings.Contains(now, "fd00:244::1") {
		t.Errorf("the bridge has former addresses: %s", now)
	}
}

func TestRulesOfTheNetworkAreBackAtOnce(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.putOwn()
	w.start()
	w.awaitReport(200, "1 nodes")
	w.ip("link add trivet0 type bridge")
	rules := func() string { return w.in(w.node, "nft", "list", "ruleset") }
	const masquerade = `iifname "trivet0" oifname != "trivet0" ip daddr != @nomasq4 masquerade`
	w.await("rules", func() bool { return strings.Contains(rules(), masquerade) })
	w.awaitReport(200, "1 nodes")

	whole := rules()
	for _, damage := range [][]string{
		{"flush", "ruleset"},
		{"flush", "table", "inet", "cni_trivet"},
		{"flush", "chain", "inet", "cni_trivet", "postrouting"},
		{"flush", "set", "inet", "cni_trivet", "nomasq4"},
		{"delete", "table", "inet", "cni_trivet"},
	} {
		w.in(w.node, append([]string{"nft"}, damage...)...)
		w.await("rules after "+strings.Join(damage, " "), func() bool { return sameRules(rules(), whole) })
	}
}

// sameRules compares without order, which differs when the chains were made in another one.
func sameRules(a, b string) bool {
	count := map[string]int{}
	for line := range strings.Lines(a) {
		count[line]++
	}

	for line := range strings.Lines(b) {
		count[line]--
	}

	for _, n := range count {
		if n != 0 {
			return false
		}
	}

	return true
}

// record writes a record of host ports as the plugin does.
func record(t *testing.T, pool *ipam.Pool, owner ipam.Owner, ports ...hostnat.Port) {
	t.Helper()
	data, err := json.Marshal(map[string]any{"owner": owner, "ports": ports})
	if err != nil {
		t.Fatal(err)
	}

	sum := sha256.Sum256([]byte(owner.String()))
	path := filepath.Join(pool.PortsDir(), hex.EncodeToString(sum[:16]))
	if err := os.MkdirAll(pool.PortsDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// ownData gives the test a /var/lib/cni of its own, and a /var/lib: in the host's, the directory might have
// to be made, which others who look at the host at the same time would see.
func ownData(t *testing.T) {
	t.Helper()
	if err := unix.Mount("lib", "/var/lib", "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/var/lib", unix.MNT_DETACH) })
	if err := os.Mkdir("/var/lib/cni", 0o755); err != nil {
		t.Fatal(err)
	}
}

// The table is the only place where packets find host ports. The records beside the reservations say what was
// there.
func TestHostPortsOfRunningPodsAreBackAtOnce(t *testing.T) {
	w := newWorld(t)
	ownData(t)
	pool, err := ipam.Location{DataDir: "/var/lib/cni/networks", Network: "trivet"}.Create()
	if err != nil {
		t.Fatal(err)
	}

	pod := ipam.Owner{ContainerID: "pod", IfName: "eth0"}
	gone := ipam.Owner{ContainerID: "gone", IfName: "eth0"}
	for i, owner := range []ipam.Owner{pod, gone} {
		port := hostnat.Port{
			HostPort: uint16(8080 + i),
			Protocol: "tcp",
			Pod:      netip.AddrPortFrom(netip.MustParseAddr("10.244.0.9"), 80),
		}

		record(t, pool, owner, port)
	}

	w.write("good", 0o600, "")
	w.putOwn()
	w.ip("link add trivet0 type bridge")
	w.ip("link add " + bridge.HostName("trivet", pod) + " master trivet0 type veth peer name eth0pod")
	w.start()
	published := func() bool {
		rules := w.in(w.node, "nft", "list", "ruleset")
		return strings.Contains(rules, `tcp . 8080 comment "pod/eth0" : 10.244.0.9 . 80`)
	}

	w.await("the host port on record", published)
	w.awaitReport(200, "1 nodes")
	for _, damage := range []string{"flush ruleset", "flush map inet cni_trivet ports4"} {
		w.in(w.node, "nft", damage)
		w.await("the host port after "+damage, published)
	}

	if rules := w.in(w.node, "nft", "list", "ruleset"); strings.Contains(rules, "8081") {
		t.Errorf("the host port of a pod that is gone: %s", rules)
	}
}
