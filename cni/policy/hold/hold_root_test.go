package hold_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/policy/hold"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// node is a network namespace with the records of one network.
type node struct {
	hold.Network
	t     *testing.T
	netns string
	dir   string
}

func newNode(t *testing.T) *node {
	testenv.Root(t)
	n := &node{t: t, netns: testenv.Netns(t), dir: t.TempDir()}
	n.open()
	return n
}

func (n *node) open() {
	n.t.Helper()
	pool, err := ipam.Location{DataDir: n.dir, Network: "test", BootScoped: true}.Create()
	if err != nil {
		n.t.Fatal(err)
	}
	n.Network = hold.Network{Name: "test", Pool: pool}
}

func (n *node) do(f func() error) {
	n.t.Helper()
	if err := namespace.Do(f, n.netns); err != nil {
		n.t.Error(err)
	}
}

func record(i int, ns string) hold.Record {
	return hold.Record{
		Owner:     ipam.Owner{ContainerID: fmt.Sprint("c", i), IfName: "eth0"},
		Namespace: ns,
		Pod:       fmt.Sprint("pod", i),
		Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}),
			netip.MustParseAddr(fmt.Sprintf("fd00::%x", i+1)),
		},
	}
}

func (n *node) begin(r hold.Record) (held bool) {
	n.t.Helper()
	n.do(func() (err error) { held, err = n.Begin(r); return err })
	return held
}

func (n *node) held() (count int) {
	n.t.Helper()
	n.do(func() error {
		all, err := n.Held()
		count = len(all)
		return err
	})
	return count
}

func (n *node) ruleset() (out string) {
	n.t.Helper()
	n.do(func() error {
		text, err := exec.Command(testenv.Program(n.t, "nft", "nftables"), "list", "ruleset").CombinedOutput()
		out = string(text)
		return err
	})
	return out
}

func TestOnlyPodsOfNamespacesWithPoliciesAreHeld(t *testing.T) {
	n := newNode(t)
	if n.Known() {
		t.Error("policies are known before anybody has looked")
	}
	if n.begin(record(1, "closed")) || n.ruleset() != "" {
		t.Error("a pod is held although nobody knows of policies")
	}

	n.do(func() error { return n.Announce(map[string]bool{"closed": true}) })
	if !n.Known() || !n.begin(record(2, "closed")) ||
		n.begin(record(3, "open")) || n.begin(record(4, "../x")) {
		t.Error("which pods are held is wrong")
	}
	if n.held() != 2 || !strings.Contains(n.ruleset(), "ip daddr @held4 drop") {
		t.Errorf("held are %d: %s", n.held(), n.ruleset())
	}

	// Nobody is there to let it go, so nobody waits.
	n.do(func() error { return n.Await(record(2, "closed").Addresses) })
	n.do(n.Tidy)
	if n.held() != 2 {
		t.Error("tidying lets a pod go")
	}

	n.do(func() error { return n.End(record(2, "closed").Owner) })
	n.do(func() error { return n.End(record(2, "closed").Owner) })
	n.do(n.Tidy)
	if n.ruleset() != "" {
		t.Errorf("nobody is held, and there is %s", n.ruleset())
	}
	n.do(func() error { return n.Announce(nil) })
	if n.begin(record(5, "closed")) {
		t.Error("a pod is held for policies that have gone")
	}
}

func TestTheStartOfAPodWaitsForWhoLetsItGo(t *testing.T) {
	n := newNode(t)
	n.do(func() error { return n.Announce(map[string]bool{"ns": true}) })
	serving, err := n.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = serving.Close() }()

	// All pods start at once.
	const pods = 30
	var starts sync.WaitGroup
	for i := range pods {
		starts.Go(func() {
			r := record(i, "ns")
			n.begin(r)
			n.do(func() error { return n.Await(r.Addresses) })
			if n.isHeld(r) {
				t.Errorf("%s has not waited", r.Pod)
			}
		})
	}
	starts.Go(func() {
		for let := 0; let < 2*pods; {
			n.do(func() error {
				held, err := n.Held()
				let += len(held)
				if err != nil {
					return err
				}
				return n.Release(held)
			})
		}
	})
	starts.Wait()

	all, err := n.Records()
	if len(all) != pods || err != nil {
		t.Errorf("%d records, %v", len(all), err)
	}
	n.do(func() error { return n.Keep(func(o ipam.Owner) bool { return o.ContainerID == "c7" }) })
	if all, _ := n.Records(); len(all) != 1 || all[0].Pod != "pod7" {
		t.Errorf("GC leaves %v", all)
	}
}

func (n *node) isHeld(r hold.Record) (is bool) {
	n.do(func() error {
		held, err := n.Held()
		for _, a := range held {
			is = is || a == r.Addresses[0]
		}
		return err
	})
	return is
}

func TestNamespacesOutliveABootAndPodsDoNot(t *testing.T) {
	n := newNode(t)
	n.do(func() error { return n.Announce(map[string]bool{"closed": true}) })
	n.begin(record(1, "closed"))
	if err := os.WriteFile(n.dir+"/test/.boot_id", []byte("another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.open()
	if all, err := n.Records(); len(all) > 0 || err != nil {
		t.Errorf("after a boot there are %v, %v", all, err)
	}
	if !n.begin(record(2, "closed")) {
		t.Error("after a boot, a pod is not held")
	}

	n.do(n.Forget)
	if n.Known() || n.ruleset() != "" {
		t.Errorf("what is forgotten is there: %s", n.ruleset())
	}
}

// Between what trivet-netd has read and what it does, an address may have become another pod's.
func TestAnAddressThatAnotherPodHasGotStaysHeld(t *testing.T) {
	n := newNode(t)
	n.do(func() error { return n.Announce(map[string]bool{"ns": true}) })
	former, next, stray := record(1, "ns"), record(2, "ns"), record(3, "ns")
	next.Addresses = former.Addresses
	n.begin(former)
	n.do(func() error { return n.End(former.Owner) })
	n.begin(next)
	n.begin(stray)

	n.do(func() error { return n.Settle([]hold.Record{former}, stray.Addresses) })
	if !n.isHeld(next) || !n.isHeld(stray) {
		t.Error("a pod is let go whose rules nobody has written")
	}

	n.do(func() error { return n.Settle([]hold.Record{next}, nil) })
	if n.isHeld(next) || !n.isHeld(stray) {
		t.Error("who is held is wrong")
	}
}

func TestRecordsThatCannotBeReadDoNotHinderOthers(t *testing.T) {
	n := newNode(t)
	n.begin(record(1, "ns"))
	if err := os.WriteFile(n.dir+"/test/.policy/pods/torn", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := n.Records(); len(all) != 1 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
}
