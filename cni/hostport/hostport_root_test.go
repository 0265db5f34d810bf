package hostport

import (
	"net/netip"
	"testing"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// network runs a test with the host ports of one network, in a network namespace of its own.
func network(t testing.TB, f func(n Network) error) {
	t.Helper()
	testenv.Root(t)
	pool, err := ipam.Location{DataDir: t.TempDir(), Network: "test"}.Create()
	if err != nil {
		t.Fatal(err)
	}

	n := Network{NAT: hostnat.Config{
		Network: "test",
		Bridge:  "br0",
		SNAT:    true,
		Ports:   true,
	}, Pool: pool}
	if err := namespace.Do(func() error { return f(n) }, testenv.Netns(t)); err != nil {
		t.Error(err)
	}
}

func port(number uint16, pod string) []hostnat.Port {
	return []hostnat.Port{{
		HostPort: number,
		Protocol: "tcp",
		Pod:      netip.AddrPortFrom(netip.MustParseAddr(pod), 80),
	}}
}

func TestHostPortsArePublishedUntilTheyAreWithdrawn(t *testing.T) {
	network(t, func(n Network) error {
		ports := port(8080, "10.1.0.2")
		if err := n.Publish(owner("a"), ports); err != nil {
			return err
		}
		if err := n.Check(ports); err != nil {
			t.Error(err)
		}
		if err := n.Publish(owner("b"), port(8080, "10.1.0.3")); err == nil {
			t.Error("a host port that another one has")
		}

		// After an error, too, everything of the owner goes.
		for _, id := range []string{"b", "a", "a"} {
			if err := withdraw(n, owner(id)); err != nil {
				t.Error(err)
			}
		}

		if n.Check(ports) == nil || storeOf(n.Pool).has(owner("a")) || storeOf(n.Pool).has(owner("b")) {
			t.Error("they are still published, or on record")
		}

		return nil
	})
}

func TestHostPortsOfRunningAttachmentsAreRestored(t *testing.T) {
	network(t, func(n Network) error {
		runs, ended := port(8080, "10.1.0.2"), port(8081, "10.1.0.3")
		if err := n.Publish(owner("runs"), runs); err != nil {
			return err
		}
		if err := n.Publish(owner("ended"), ended); err != nil {
			return err
		}

		isRunning := func(o ipam.Owner) bool { return o == owner("runs") }
		if rules, ports, err := n.Restore(isRunning); rules || ports || err != nil {
			t.Errorf("nothing is missing, and is restored: %v, %v, %v", rules, ports, err)
		}

		// As nft flush ruleset does.
		gone := Network{NAT: n.NAT}
		for _, id := range []string{"runs", "ended"} {
			if err := withdraw(gone, owner(id)); err != nil {
				return err
			}
		}

		if rules, ports, err := n.Restore(isRunning); rules || !ports || err != nil {
			t.Errorf("restored: %v, %v, %v", rules, ports, err)
		}
		if err := n.Check(runs); err != nil {
			t.Error(err)
		}
		if n.Check(ended) == nil {
			t.Error("a host port of an attachment that has ended")
		}

		return nil
	})
}

func TestHostPortsOfAttachmentsThatTheRuntimeHasAreKept(t *testing.T) {
	network(t, func(n Network) error {
		kept, dropped := port(8080, "10.1.0.2"), port(8081, "10.1.0.3")
		if err := n.Publish(owner("kept"), kept); err != nil {
			return err
		}
		if err := n.Publish(owner("dropped"), dropped); err != nil {
			return err
		}

		const stdin = `{"name":"test","cni.dev/valid-attachments":[{"containerID":"kept","ifname":"eth0"}]}`
		teardown, err := conf.ReadTeardown([]byte(stdin))
		if err != nil {
			return err
		}
		if err := n.Keep(teardown.Valid); err != nil {
			return err
		}
		if n.Check(dropped) == nil || storeOf(n.Pool).has(owner("dropped")) {
			t.Error("what the runtime does not have is kept")
		}

		return n.Check(kept)
	})
}

func withdraw(n Network, o ipam.Owner) error {
	table, err := n.Withdraw(o, nil)
	if err != nil {
		return err
	}
	return table.Close()
}
