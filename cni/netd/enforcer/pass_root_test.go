package enforcer

import (
	"errors"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/policy/filter"
	"github.com/trivet-node/trivet/cni/policy/hold"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/bootid"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// node is a network namespace with a bridge, and one pod on record whose namespace has a policy.
type node struct {
	t     *testing.T
	netns string
	api   *kubetest.Server
	pool  ipam.Location
}

func newNode(t *testing.T) *node {
	testenv.Root(t)
	testenv.Program(t, "nft", "nftables")
	n := &node{
		t:     t,
		netns: testenv.Netns(t),
		api:   kubetest.Start(t),
		pool:  ipam.Location{DataDir: t.TempDir(), Network: "test"},
	}
	n.in("ip link add br0 type bridge; ip link add old master br0 type veth; ip link add lan type veth")
	n.in("if cd /proc/sys/net/bridge; then echo 0 > bridge-nf-call-iptables; fi")

	deny := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "closed", Name: "deny"}}
	deny.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "closed", Name: "server"}}
	pod.Spec.NodeName = "a"
	n.api.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "closed"}})
	n.api.Put(deny)
	n.api.Put(pod)
	return n
}

func (n *node) in(script string) (out string) {
	n.t.Helper()
	n.do(func() error {
		text, err := exec.Command("sh", "-ec", script).CombinedOutput()
		out = string(text)
		return err
	})
	return out
}

func (n *node) do(f func() error) {
	n.t.Helper()
	if err := namespace.Do(f, n.netns); err != nil {
		n.t.Error(err)
	}
}

// start is a start of trivet-netd that has its lists. Passes are made by the test.
func (n *node) start() (p pass) {
	n.t.Helper()
	cfg := Config{
		NodeName: "a",
		Network:  "test",
		Bridge:   "br0",
		Pool:     n.pool,
	}
	p.Enforcer = New(n.api.Client(), cfg, func() {}, slog.New(slog.DiscardHandler))
	var running sync.WaitGroup
	n.t.Cleanup(running.Wait)
	running.Go(func() { p.source.Run(n.t.Context()) })
	for p.source.Waiting() != nil || len(p.source.Policies()) == 0 {
		<-p.wake
	}

	n.do(func() (err error) { p.host, err = rtnl.Open(); return err })
	pool, err := n.pool.Create()
	if err != nil {
		n.t.Fatal(err)
	}
	p.network = hold.Network{Name: "test", Pool: pool}
	p.boot, err = bootid.Read()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = p.host.Close() })
	return p
}

// enforce makes a pass, and returns its error.
func (n *node) enforce(p pass) (failed error) {
	n.do(func() error { failed = p.enforce(&Report{}); return nil })
	return failed
}

// add records the pod of the API, which is held if its namespace has policies.
func (n *node) add(p pass) (held bool) {
	n.do(func() (err error) {
		held, err = p.network.Begin(hold.Record{
			Owner:     ipam.Owner{ContainerID: "c", IfName: "eth0"},
			Namespace: "closed",
			Pod:       "server",
			Addresses: addresses("10.1.0.9"),
		})
		return err
	})
	return held
}

func (n *node) ruleset() string { return n.in("nft -s list ruleset") }

func TestRulesForFramesStayUntilSubnetsAreKnown(t *testing.T) {
	n := newNode(t)
	p := n.start()
	n.add(p)
	if err := n.enforce(p); !errors.Is(err, ErrNoSubnets) || strings.Contains(n.ruleset(), "policy_test") {
		t.Errorf("without subnets: %v, and there is %s", err, n.ruleset())
	}

	p.SetSubnets([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")})
	p.SetSubnets(nil)
	err := n.enforce(p)
	before := n.ruleset()
	if err != nil || !strings.Contains(before, "ip daddr 10.1.0.0/24 drop") ||
		!strings.Contains(before, `"old"`) || strings.Contains(before, `"lan"`) {
		t.Errorf("%v, and there is %s", err, before)
	}

	p = n.start()
	if err := n.enforce(p); !errors.Is(err, ErrNoSubnets) || n.ruleset() != before {
		t.Errorf("after a restart: %v, and there is %s", err, n.ruleset())
	}
}

func TestFramesAreNotComparedWithoutSubnets(t *testing.T) {
	n := newNode(t)
	p := n.start()
	n.add(p)
	subnets := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}
	p.SetSubnets(subnets)
	if err := n.enforce(p); err != nil {
		t.Fatal(err)
	}
	n.in("nft flush chain bridge policy_test forward")

	compare := func(subnets []netip.Prefix) (differences []filter.Difference) {
		n.do(func() (err error) {
			differences, err = p.compare(t.Context(), subnets)
			return err
		})
		return differences
	}
	found := compare(subnets)
	if len(found) != 1 || !strings.Contains(found[0].What, "chain forward is not") {
		t.Errorf("with subnets: %v", found)
	}
	if found := compare(nil); len(found) != 0 {
		t.Errorf("without subnets: %v", found)
	}
}

func TestAFullDiskLeavesRulesInForceAndPodsHeld(t *testing.T) {
	n := newNode(t)
	p := n.start()
	p.SetSubnets([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")})
	n.do(func() error { return p.network.Announce(map[string]bool{"closed": true}) })
	if !n.add(p) {
		t.Fatal("the pod is not held")
	}

	// The one inode is that of the directory.
	full := filepath.Join(p.network.Pool.PolicyDir(), "namespaces")
	if err := unix.Mount("full", full, "tmpfs", 0, "nr_inodes=1"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(full, unix.MNT_DETACH) }()
	if err := n.enforce(p); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	const rule, held = "10.1.0.9 : goto profile", "elements = { 10.1.0.9 }"
	if rules := n.ruleset(); !strings.Contains(rules, rule) || !strings.Contains(rules, held) {
		t.Errorf("with a full disk there is %s", rules)
	}

	if err := unix.Unmount(full, 0); err != nil {
		t.Fatal(err)
	}
	if err := n.enforce(p); err != nil {
		t.Error(err)
	}
	if rules := n.ruleset(); !strings.Contains(rules, rule) || strings.Contains(rules, held) {
		t.Errorf("when the disk has room, there is %s", rules)
	}
}
