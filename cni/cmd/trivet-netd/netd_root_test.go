package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cni/plugin"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/testenv"
)

// The test binary is the program, when it is asked to be, and the plugin, when a runtime calls it.
func TestMain(m *testing.M) {
	if os.Getenv("BE_TRIVET_NETD") != "" {
		program.Main("trivet-netd", run)
	}
	if os.Getenv("CNI_COMMAND") != "" {
		os.Exit(plugin.Main("test"))
	}
	os.Exit(testenv.OwnMounts(m))
}

// The routes of a world's nodes, as ip(8) shows them.
const (
	own4 = "unreachable 10.244.0.0/24 metric 1073741824"
	own6 = "unreachable fd00:244::/64 dev lo metric 1073741824"
	b4   = "10.244.1.0/24 via 10.99.0.2 dev eth0 metric 117"
	b6   = "fd00:244:0:1::/64 via fd99::2 dev eth0 metric 117"
)

func (w *world) putOwn() {
	w.api.put("a", []string{"10.244.0.0/24", "fd00:244::/64"}, []string{"10.99.0.1", "fd99::1"})
}

func (w *world) putB() {
	w.api.put("b", []string{"10.244.1.0/24", "fd00:244:0:1::/64"}, []string{"10.99.0.2", "fd99::2"})
}

func TestRoutesFollowTheNodes(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.putOwn()
	w.putB()
	w.api.put("far", []string{"10.244.9.0/24"}, []string{"192.0.2.9"})
	w.more = []string{"--overlay=never"}
	w.start()
	w.awaitRoutes(own4, own6, b4, b6)
	w.awaitReport(200, "note: node far: no route to its pods 10.244.9.0/24: "+
		"none of its addresses [192.0.2.9] is on a network of this node, and tunnels are switched off")
	if got := w.sysctls("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"); got != "1 1" {
		t.Errorf("forwarding %s", got)
	}

	w.api.put("c", []string{"10.244.2.0/24"}, []string{"10.99.0.3"})
	c4 := "10.244.2.0/24 via 10.99.0.3 dev eth0 metric 117"
	w.awaitRoutes(own4, own6, b4, b6, c4)
	w.api.put("c", []string{"10.244.3.0/24"}, []string{"10.99.0.3"})
	w.awaitRoutes(own4, own6, b4, b6, "10.244.3.0/24 via 10.99.0.3 dev eth0 metric 117")
	w.api.put("c", []string{"10.244.3.0/24"}, []string{"10.99.0.4"})
	w.awaitRoutes(own4, own6, b4, b6, "10.244.3.0/24 via 10.99.0.4 dev eth0 metric 117")
	w.api.remove("c")
	w.awaitRoutes(own4, own6, b4, b6)
	w.api.remove("b")
	w.awaitRoutes(own4, own6)
	w.end(syscall.SIGTERM)
	if got := w.routes(); !slices.Equal(got, []string{own4, own6}) {
		t.Errorf("the end of the daemon took routes: %q", got)
	}
}

func TestRoutesAreRepairedAndThoseOfOthersStay(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.putOwn()
	w.putB()
	w.ip("route add 10.244.1.0/24 via 10.99.0.77 proto static")
	w.ip("-6 route add fd00:244:0:1::/64 via fd99::77 proto static")
	w.ip("route add 10.244.7.0/24 via 10.99.0.7 proto bird")
	w.start()
	w.awaitRoutes(own4, own6, b4, b6)
	for _, damage := range []string{
		"route del 10.244.1.0/24 via 10.99.0.2",
		"-6 route del fd00:244:0:1::/64 via fd99::2",
		"route flush proto 117",
		"-6 route flush proto 117",
		"route change 10.244.1.0/24 metric 117 via 10.99.0.66 proto 117",
		"route add 10.244.66.0/24 via 10.99.0.66 proto 117",
	} {
		w.ip(damage)
		w.awaitRoutes(own4, own6, b4, b6)
	}

	// This takes the IPv4 routes, and the IPv6 addresses.
	w.ip("link set eth0 down")
	w.await("IPv4 routes gone", func() bool { return !slices.Contains(w.routes(), b4) })
	w.ip("link set eth0 up")
	w.ip("addr replace fd99::1/64 dev eth0 nodad")
	w.awaitRoutes(own4, own6, b4, b6)

	// The kernel had taken this one, too.
	w.ip("route add 10.244.1.0/24 via 10.99.0.77 proto static")
	w.api.remove("b")
	w.awaitRoutes(own4, own6)
	if got := w.ip("route show 10.244.1.0/24"); !strings.HasPrefix(got, "10.244.1.0/24 via 10.99.0.77 ") {
		t.Errorf("the foreign route is %q", got)
	}
}

func TestConfigurationWaitsForThePlugin(t *testing.T) {
	w := newWorld(t)
	w.api.put("a", nil, []string{"10.99.0.1"})
	w.start()
	w.awaitReport(503, "error: node a has no pod CIDR yet")
	w.api.put("a", []string{"10.244.0.0/24"}, []string{"10.99.0.1"})
	w.awaitReport(503, "nftables is not usable: operation not supported")
	if got := w.subnets(); got != "" {
		t.Errorf("configuration %s is there before the plugin is good", got)
	}
	if status, body := w.ask("/healthz"); status != 200 || !strings.Contains(body, "last sync 20") {
		t.Errorf("/healthz: %d %s", status, body)
	}

	// Routes do not wait for the plugin.
	w.awaitRoutes(own4)

	w.write("good", 0o600, "")
	w.awaitReport(200, "1 nodes, 1 routes")
	if got := w.subnets(); got != "10.244.0.0/24 mtu 1400" {
		t.Errorf("configuration for %s", got)
	}

	asked, err := os.ReadFile(filepath.Join(w.dir, "asked"))
	if err != nil || !strings.Contains(string(asked), `"cniVersion":"1.1.0"`) ||
		!strings.Contains(string(asked), `"name":"trivet"`) {
		t.Errorf("STATUS was asked with %s, %v", asked, err)
	}

	// A plugin that turns bad does not take the configuration away, but a new one waits.
	if err := os.Remove(filepath.Join(w.dir, "good")); err != nil {
		t.Fatal(err)
	}

	w.ip("link set eth0 mtu 1300")
	w.awaitReport(503, "nftables is not usable")
	if got := w.subnets(); got != "10.244.0.0/24 mtu 1400" {
		t.Errorf("configuration for %s", got)
	}

	w.write("good", 0o600, "")
	w.awaitReport(200, "1 routes")
	if got := w.subnets(); got != "10.244.0.0/24 mtu 1300" {
		t.Errorf("configuration for %s", got)
	}

	// One that allocates addresses which are not this node's any more is worse than one that the plugin may
	// not be able to serve.
	if err := os.Remove(filepath.Join(w.dir, "good")); err != nil {
		t.Fatal(err)
	}

	w.api.put("a", []string{"10.244.5.0/24"}, []string{"10.99.0.1"})
	w.await("the new pod CIDR", func() bool { return w.subnets() == "10.244.5.0/24 mtu 1300" })
	w.awaitRoutes("unreachable 10.244.5.0/24 metric 1073741824")
}

func TestMTUIsThatOfTheWayOut(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")

	// The machine does not have this address, as behind NAT.
	w.api.put("a", []string{"10.244.0.0/24"}, []string{"192.0.2.1"})
	w.start()
	w.await("no MTU without a way out", func() bool { return w.subnets() == "10.244.0.0/24 mtu 0" })
	w.ip("route add default via 10.99.0.254")
	w.await("the MTU of the default route", func() bool { return w.subnets() == "10.244.0.0/24 mtu 1400" })
	w.ip("link set eth0 mtu 1300")
	w.await("the MTU has changed", func() bool { return w.subnets() == "10.244.0.0/24 mtu 1300" })
}

func TestForwardingDoesNotCutTheNodeFromItsRouter(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.ip("link add pods type veth peer name pod")
	const settings = "/proc/sys/net/ipv6/conf/eth0/accept_ra /proc/sys/net/ipv6/conf/pods/accept_ra"
	w.in(w.node, "sh", "-c", "echo 1 | tee "+settings)
	w.ip("-6 route add default via fd99::fe dev eth0 proto ra")
	w.putOwn()
	w.start()
	w.awaitReport(200, "routes")

	forwarding := w.sysctls("net/ipv6/conf/all/forwarding")
	listening := w.sysctls("net/ipv6/conf/eth0/accept_ra", "net/ipv6/conf/pods/accept_ra")
	if forwarding != "1" || listening != "2 1" {
		t.Errorf("forwarding %s, accept_ra of eth0 and of an interface to pods %s", forwarding, listening)
	}
}

func TestNothingIsTakenAwayWithoutTheAPIServer(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.putOwn()
	w.putB()
	w.start()
	w.awaitReport(200, "2 nodes, 4 routes")
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}

	// Routes are repaired from memory.
	w.ip("route flush proto 117")
	w.awaitRoutes(own4, own6, b4, b6)
	w.kill()
	w.start()
	w.awaitReport(503, "error: waiting for the API server")
	if got := w.routes(); !slices.Equal(got, []string{b4, b6, own4, own6}) {
		t.Errorf("routes %q", got)
	}
	if got := w.subnets(); got != "10.244.0.0/24,fd00:244::/64 mtu 1400" {
		t.Errorf("configuration for %s", got)
	}

	w.api.remove("b")
	w.listen(w.address)
	w.awaitReport(200, "1 nodes, 2 routes")
	w.awaitRoutes(own4, own6)

	// The Node of a machine that still runs is missing: that is nothing to act on.
	w.api.remove("a")
	w.awaitReport(503, "node a is not in the cluster")
	w.awaitRoutes(own4, own6)
}

func TestKilledAtAnyMoment(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.putOwn()
	want := []string{own4, own6}
	for i := range 16 {
		w.start()
		name := fmt.Sprintf("n%d", i)
		cidr := fmt.Sprintf("10.244.%d.0/24", i+10)
		w.api.put(name, []string{cidr}, []string{fmt.Sprintf("10.99.0.%d", i+10)})
		if i%3 == 0 {
			w.api.remove(name)
		} else {
			want = append(want, fmt.Sprintf("%s via 10.99.0.%d dev eth0 metric 117", cidr, i+10))
		}

		// The configuration is written twice meanwhile.
		w.api.put("a", []string{"10.244.0.0/24", "fd00:244::/64"}, []string{"10.99.0.1"})
		w.api.put("a", []string{"fd00:244::/64"}, []string{"10.99.0.1"})
		// The moment of the kill is random. A start takes some 50 ms.
		<-time.After(time.Duration(20+rand.IntN(230)) * time.Millisecond)
		w.kill()
		w.subnets()
	}

	w.putOwn()
	w.write("conf/.tmp-10-trivet.conflist-123", 0o600, "half")
	w.start()
	w.awaitRoutes(want...)
	w.awaitReport(200, "routes")
	if got := w.subnets(); got != "10.244.0.0/24,fd00:244::/64 mtu 1400" {
		t.Errorf("configuration for %s", got)
	}

	w.end(syscall.SIGTERM)
	entries, err := os.ReadDir(filepath.Join(w.dir, "conf"))
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestCleanupRemovesRoutesAndConfigurationAndNothingElse(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.write("conf/99-other.conflist", 0o600, "{}")
	w.ip("route add 10.244.7.0/24 via 10.99.0.7 proto bird")
	w.putOwn()
	w.putB()
	w.start()
	w.awaitReport(200, "4 routes")
	w.end(syscall.SIGTERM)

	// A second time is harmless.
	for range 2 {
		cmd := w.command("--cleanup")
		cmd.SysProcAttr = nil
		if err := namespace.Do(cmd.Run, w.node); err != nil {
			t.Fatal(err)
		}
		if got := w.routes(); len(got) > 0 || w.subnets() != "" {
			t.Errorf("left: %q %s", got, w.subnets())
		}
	}

	if got := w.ip("route show proto bird"); !strings.Contains(got, "10.244.7.0/24") {
		t.Errorf("the foreign route is gone: %q", got)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "conf/99-other.conflist")); err != nil {
		t.Error(err)
	}
}

func TestSecondDaemonSaysThatOneIsRunning(t *testing.T) {
	w := newWorld(t)
	w.write("good", 0o600, "")
	w.putOwn()
	w.start()
	w.awaitReport(200, "routes")

	second := w.command()
	var said strings.Builder
	second.Stderr = &said
	second.SysProcAttr = nil
	err := namespace.Do(second.Run, w.node)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != program.ExitCantRun ||
		!strings.Contains(said.String(), "another trivet-netd may be running") {
		t.Errorf("%v: %s", err, said.String())
	}
}
