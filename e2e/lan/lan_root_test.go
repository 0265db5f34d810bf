package lan

import (
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

var gateway = netip.MustParseAddr("10.98.0.1")

// host starts a process in a network namespace of its own. (Pdeathsig would come when the thread ends that
// started it, and tests end threads: those that were in another namespace.)
func host(t *testing.T) int {
	t.Helper()
	testenv.Root(t)
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}

	// It ends with this pipe.
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

func TestMachinesReachEachOtherUntilTheCableIsCut(t *testing.T) {
	sw := host(t)
	a, b := host(t), host(t)

	// repeating is harmless
	for range 2 {
		must(t, Switch(sw, netip.PrefixFrom(gateway, 16)))
		must(t, Plug(sw, a, "a", prefixes("10.98.0.2/16"), []netip.Addr{gateway}))
		must(t, Plug(sw, b, "b", prefixes("10.98.0.3/16"), []netip.Addr{gateway}))
	}

	server := listenIn(t, b, "10.98.0.3:7")
	sendFrom(t, a, "10.98.0.3:7", "one")
	if got := receive(server, 10*time.Second); got != "one" {
		t.Fatalf("got %q through the LAN, want one", got)
	}

	must(t, Cut(sw, "b"))
	sendFrom(t, a, "10.98.0.3:7", "two")
	if got := receive(server, 100*time.Millisecond); got != "" {
		t.Fatalf("got %q through a cut cable", got)
	}

	must(t, Mend(sw, "b"))
	// The bridge forwards again once the kernel has seen the carrier of the port; what is sent before that is
	// lost.
	for end := time.Now().Add(10 * time.Second); ; {
		sendFrom(t, a, "10.98.0.3:7", "three")
		if got := receive(server, 50*time.Millisecond); got == "three" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing arrives after the cable was mended")
		}
	}
}

// The kernel takes the network of a halted machine away in its own time: a test on a busy machine met the old
// port after the reboot.
func TestMachineIsPluggedInAgainWhileItsOldNetworkIsStillThere(t *testing.T) {
	sw := host(t)
	before, after := host(t), host(t)
	must(t, Switch(sw, netip.PrefixFrom(gateway, 16)))
	addr := netip.MustParsePrefix("10.98.0.2/16")
	must(t, Plug(sw, before, "a", []netip.Prefix{addr}, []netip.Addr{gateway}))
	must(t, Plug(sw, after, "a", []netip.Prefix{addr}, []netip.Addr{gateway}))
	server := listenIn(t, after, "10.98.0.2:7")
	for end := time.Now().Add(10 * time.Second); ; {
		sendFrom(t, sw, "10.98.0.2:7", "hello")
		if receive(server, 50*time.Millisecond) == "hello" {
			return
		}
		if time.Now().After(end) {
			t.Fatal("nothing arrives at the machine that was plugged in again")
		}
	}
}

func TestRouteIsReplaced(t *testing.T) {
	sw, a := host(t), host(t)
	must(t, Switch(sw, netip.PrefixFrom(gateway, 16)))
	must(t, Plug(sw, a, "a", prefixes("10.98.0.2/16"), []netip.Addr{gateway}))
	pods := netip.MustParsePrefix("10.244.3.0/24")
	must(t, Route(a, pods, netip.MustParseAddr("10.98.0.3")))
	must(t, Route(a, pods, netip.MustParseAddr("10.98.0.4")))
	if err := Route(a, pods, netip.MustParseAddr("192.0.2.1")); err == nil ||
		!strings.Contains(err.Error(), pods.String()) {
		t.Errorf("error %v for a gateway that is not on the LAN, want one that names the network", err)
	}
}

func TestMachinesHaveAddressesOfBothFamilies(t *testing.T) {
	sw, a := host(t), host(t)
	gateways := prefixes("10.98.0.1/16", "fd00:98::1/64")
	must(t, Switch(sw, gateways...))
	must(t, Plug(
		sw,
		a,
		"a",
		prefixes("10.98.0.2/16", "fd00:98::2/64"),
		[]netip.Addr{gateways[0].Addr(), gateways[1].Addr()},
	))

	for _, to := range []string{"10.98.0.1:7", "[fd00:98::1]:7"} {
		server := listenIn(t, sw, to)
		sendFrom(t, a, to, "hello")
		if got := receive(server, 10*time.Second); got != "hello" {
			t.Errorf("got %q at %s", got, to)
		}
	}
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestUnknownPortIsNamed(t *testing.T) {
	if err := Cut(host(t), "nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("error %v, want one that names the port", err)
	}
}

func receive(c net.PacketConn, wait time.Duration) string {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 16)
	n, _, _ := c.ReadFrom(buf)
	return string(buf[:n])
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
