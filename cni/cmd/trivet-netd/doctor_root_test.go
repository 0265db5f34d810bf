package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/internal/namespace"
)

// doctor returns what the program says, and whether it has succeeded.
func (w *world) doctor() (said string, ok bool) {
	w.t.Helper()
	cmd := w.command()
	cmd.Args = append([]string{cmd.Args[0], "doctor"}, cmd.Args[1:]...)
	cmd.SysProcAttr = nil
	var out strings.Builder
	cmd.Stdout = &out
	err := namespace.Do(cmd.Run, w.node)
	w.t.Logf("%s%v", out.String(), err)
	return out.String(), err == nil
}

// expectFindings checks that each of some texts is in a line that says that something is wrong.
func (w *world) expectFindings(texts ...string) {
	w.t.Helper()
	said, ok := w.doctor()
	if ok {
		w.t.Error("it succeeds")
	}
	for _, text := range texts {
		found := false
		for line := range strings.Lines(said) {
			found = found || strings.HasPrefix(line, "wrong") && strings.Contains(line, text)
		}
		if !found {
			w.t.Errorf("it does not say %q", text)
		}
	}
}

func TestDoctorNamesWhatDiffersAndWhatWasLeft(t *testing.T) {
	ownData(t)
	f := newFleet(t)
	a := f.node(1, 1)
	f.put(1, 1)
	f.put(2, 3)
	a.start()
	a.awaitReport(200, "1 nodes through tunnels")
	a.await("nothing is wrong", func() bool {
		said, ok := a.doctor()
		return ok && !strings.Contains(said, "wrong") && strings.Contains(said, "vxlan: can be made")
	})

	// Nobody repairs any more.
	a.kill()
	a.in(a.node, "sh", "-ec", `ip route del 10.244.3.0/24; ip route add 10.244.66.0/24 via 192.0.1.9 proto 117
		bridge fdb del $(bridge fdb show dev trivet-vxlan4 | head -1) dev trivet-vxlan4
		nft flush chain inet cni_trivet postrouting; nft delete table inet tunnel_trivet
		echo 0 > /proc/sys/net/ipv4/ip_forward`)
	pool, err := ipam.Location{DataDir: "/var/lib/cni/networks", Network: "trivet"}.Create()
	if err != nil {
		t.Fatal(err)
	}
	gone := ipam.Owner{ContainerID: "gone", IfName: "eth0"}
	set := ipam.Set{rangeOf(t, "10.244.1.0/24")}
	if _, err := pool.Allocate(gone, []ipam.Set{set}, nil); err != nil {
		t.Fatal(err)
	}
	err = namespace.Do(func() error {
		table, err := hostnat.Open(hostnat.Config{Network: "trivet"})
		if err != nil {
			return err
		}
		defer func() { _ = table.Close() }()
		port := hostnat.Port{HostPort: 8080, Protocol: "tcp", Pod: netip.MustParseAddrPort("10.244.1.2:80")}
		return table.AddPorts(gone.Label(), []hostnat.Port{port})
	}, a.node)
	if err != nil {
		t.Fatal(err)
	}

	before := a.state()
	a.expectFindings(
		"route to 10.244.3.0/24 via 10.244.3.0 is missing",
		"route to 10.244.66.0/24 via 192.0.1.9 is not wanted",
		"dst 192.0.2.3 is missing",
		"nftables table inet tunnel_trivet",
		"chain postrouting of nftables table cni_trivet",
		"sysctl net/ipv4/ip_forward",
		"reserved for gone/eth0, which has no interface",
		"gone/eth0 is published",
	)
	if now := a.state(); now != before {
		t.Errorf("it has changed something:\n%s\nbefore:\n%s", now, before)
	}
}

// state is what the program might change. An address is tentative for a while.
func (w *world) state() string {
	return w.in(w.node, "sh", "-c", "ip link; ip addr | sed 's/ tentative//'; ip route; ip -6 route; "+
		"nft list ruleset; cat /proc/sys/net/ipv4/ip_forward; find /var/lib/cni -type f | sort")
}

func TestDoctorComparesTheRulesOfPolicies(t *testing.T) {
	w := newPolicyWorld(t)
	w.deny()
	w.start()
	w.awaitPolicies()
	w.putPod("closed", "server")
	server := w.add("closed", "server")
	w.await("nothing is wrong", func() bool {
		said, _ := w.doctor()
		return !strings.Contains(said, "network policies")
	})

	// Nobody repairs any more.
	w.kill()
	const passing = `profile=$(nft list map inet policy_trivet ingress4 | grep -o 'profile[0-9]*')
		now=$(nft list chain inet policy_trivet $profile | sed 's/drop$/accept/')
		(echo flush chain inet policy_trivet $profile; echo "$now") | nft -f -`
	w.in(w.node, "sh", "-ec", passing)
	w.expectFindings(" (ingress of " + server.address + ", ingress of ")

	w.in(w.node, "nft", "delete", "element", "inet", "policy_trivet", "ingress4", "{ "+server.address+" }")
	w.in(w.node, "nft", "flush", "chain", "bridge", "policy_trivet", "forward")
	w.expectFindings(
		"element "+server.address+" of set ingress4 is missing",
		"nftables table bridge policy_trivet: chain forward is not as it should be",
	)

	const left = "nftables table inet policy_trivet is there, and there are no policies"
	w.policies = false
	w.expectFindings(left)
	w.policies = true
	w.api.Remove("networkpolicies", "closed", "deny")
	w.expectFindings(left)
}

func TestDoctorWithoutAConfigurationOrAnAPIServer(t *testing.T) {
	w := newWorld(t)
	if err := w.server.Close(); err != nil {
		t.Fatal(err)
	}
	w.expectFindings("there is no network configuration", "API server: waiting for the API server")
}

func rangeOf(t *testing.T, subnet string) ipam.Range {
	t.Helper()
	r, err := ipam.NewRange(ipam.Range{Subnet: netip.MustParsePrefix(subnet)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDoctorNamesPodsThatAreNotGuarded(t *testing.T) {
	w := newPolicyWorld(t)
	w.start()
	w.awaitPolicies()
	w.putPod("closed", "server")
	w.add("closed", "server")

	const others = "addresses of others, by "
	if said, _ := w.doctor(); strings.Contains(said, others) {
		t.Error("it names pods that are guarded")
	}

	veth := w.in(w.node, "sh", "-ec", `veth=$(ip -br link show master trivet0 | sed 's/@.*//')
		tc qdisc del dev $veth clsact
		printf %s $veth`)
	if said, _ := w.doctor(); !strings.Contains(said, "note   1 pods: they can send from "+others+veth) {
		t.Errorf("it does not name %s", veth)
	}
}
