package main

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/portrecord"
)

// The Node was deleted, and joins again with other pod CIDRs. The bridge has the gateways of those before.
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
	w.awaitReport(503, "error: gateway of bridge trivet0: it has [10.244.0.1/24] for 1 pods that are still "+
		"there, and gets 10.244.5.1/24")
	if now := addresses(); !strings.Contains(now, "10.244.0.1/24") || strings.Contains(now, "10.244.5.1") {
		t.Errorf("the bridge of a pod has %s", now)
	}

	w.await("new pods get no old addresses",
		func() bool { return w.subnets() == "10.244.5.0/24,fd00:244:5::/64 mtu 1400" })

	w.ip("link del pod0")
	w.awaitReport(200, "1 nodes")
	now := addresses()
	for _, want := range []string{"10.244.5.1/24", "fd00:244:5::1/64"} {
		if !strings.Contains(now, want) {
			t.Errorf("the bridge has not %s: %s", want, now)
		}
	}

	if strings.Contains(now, "10.244.0.1") || strings.Contains(now, "fd00:244::1") {
		t.Errorf("the bridge has addresses of before: %s", now)
	}
}

// On a busy machine, passes keep up to a second apart.
const soon = 2 * time.Second

func TestRulesOfTheNetworkAreBackWithinASecond(t *testing.T) {
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
		began := time.Now()
		w.await("rules after "+strings.Join(damage, " "), func() bool { return sameRules(rules(), whole) })
		if took := time.Since(began); took > soon {
			t.Errorf("%v: repaired after %s", damage, took)
		}
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

// The table is the only place where packets find host ports, and the records beside the reservations say what
// was there.
func TestHostPortsOfRunningPodsAreBackWithinASecond(t *testing.T) {
	w := newWorld(t)
	if err := os.MkdirAll("/var/lib/cni", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("cni", "/var/lib/cni", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = unix.Unmount("/var/lib/cni", unix.MNT_DETACH) })
	pool, err := ipam.Open("/var/lib/cni/networks", "trivet", false)
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

		r := portrecord.Record{Owner: owner, Ports: []hostnat.Port{port}}
		if err := portrecord.Of(pool).Write(r); err != nil {
			t.Fatal(err)
		}
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
		began := time.Now()
		w.await("the host port after "+damage, published)
		if took := time.Since(began); took > soon {
			t.Errorf("%s: published after %s", damage, took)
		}
	}

	if rules := w.in(w.node, "nft", "list", "ruleset"); strings.Contains(rules, "8081") {
		t.Errorf("the host port of a pod that is gone: %s", rules)
	}
}
