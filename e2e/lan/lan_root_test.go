package lan

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

var gateway = netip.MustParseAddr("10.98.0.1")

func TestMachinesReachEachOtherUntilTheCableIsPulled(t *testing.T) {
	sw, a, b := testenv.Netns(t), testenv.Netns(t), testenv.Netns(t)
	for range 2 { // twice: repeating is harmless
		must(t, Switch(sw, netip.PrefixFrom(gateway, 16)))
		must(t, Attach(sw, a, "a", netip.MustParsePrefix("10.98.0.2/16"), gateway))
		must(t, Attach(sw, b, "b", netip.MustParsePrefix("10.98.0.3/16"), gateway))
	}
	var server net.PacketConn
	must(t, namespace.Do(func() (err error) {
		server, err = net.ListenPacket("udp4", "10.98.0.3:7")
		return err
	}, b))
	defer server.Close()
	send := func(text string) {
		t.Helper()
		must(t, namespace.Do(func() error {
			c, err := net.Dial("udp4", "10.98.0.3:7")
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte(text))
			return err
		}, a))
	}
	receive := func(wait time.Duration) string {
		server.SetReadDeadline(time.Now().Add(wait))
		buf := make([]byte, 16)
		n, _, _ := server.ReadFrom(buf)
		return string(buf[:n])
	}
	send("one")
	if got := receive(5 * time.Second); got != "one" {
		t.Fatalf("got %q through the LAN, want one", got)
	}
	must(t, SetPort(sw, "b", false))
	send("two")
	if got := receive(100 * time.Millisecond); got != "" {
		t.Fatalf("got %q through a pulled cable", got)
	}
	must(t, SetPort(sw, "b", true))
	send("three")
	if got := receive(10 * time.Second); got != "three" && got != "two" {
		t.Fatalf("got %q after the cable was put back", got)
	}
}

func TestRouteToPodsOfAnotherMachine(t *testing.T) {
	sw, a := testenv.Netns(t), testenv.Netns(t)
	must(t, Switch(sw, netip.PrefixFrom(gateway, 16)))
	must(t, Attach(sw, a, "a", netip.MustParsePrefix("10.98.0.2/16"), gateway))
	pods := netip.MustParsePrefix("10.244.3.0/24")
	must(t, Route(a, pods, netip.MustParseAddr("10.98.0.3")))
	must(t, Route(a, pods, netip.MustParseAddr("10.98.0.4"))) // replaced, not refused
	if err := Route(a, pods, netip.MustParseAddr("192.0.2.1")); err != nil {
		return
	}
	t.Error("a gateway that is reached only through the default route was accepted")
}

func TestUnknownPortIsNamed(t *testing.T) {
	if err := SetPort(testenv.Netns(t), "nobody", true); err == nil {
		t.Error("no error for a port that is not there")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
