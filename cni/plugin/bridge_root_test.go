package plugin_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestBridgeOfSomebodyElseKeepsItsMAC(t *testing.T) {
	h := newHost(t, "")
	h.ip(h.netns, "link add br0 type bridge")
	h.ip(h.netns, "link add passing master br0 type veth peer name peer")

	// The kernel takes the bridge's address away with its last port.
	h.ip(h.netns, "link del passing")

	first := ""
	for i := range 4 {
		netns := testenv.Netns(t)
		out := h.must("ADD", fmt.Sprintf("pod-%d", i), netns, h.config(""))
		now := h.bridge().MAC.String()
		if first == "" {
			first = now
		}
		if now != first || !strings.Contains(out, now) {
			t.Errorf("ADD %d: the bridge has %s, first %s: %s", i, now, first, out)
		}
	}

	h.must("DEL", "pod-1", "", h.config(""))
	if now := h.bridge().MAC.String(); now != first {
		t.Errorf("after DEL the bridge has %s, first %s", now, first)
	}
}

func TestLongNamesAreCutWhereTheKernelHasALimit(t *testing.T) {
	h := newHost(t, "")
	id := strings.Repeat("c", 200)
	config := func(more string) string {
		long := `"name":"` + strings.Repeat("n", 200) + `"`
		return strings.Replace(h.config(more), `"name":"test"`, long, 1)
	}

	netns := testenv.Netns(t)
	other := testenv.Netns(t)
	out := h.must("ADD", id+"1", netns, config(twoPorts))
	h.must("CHECK", id+"1", netns, config(twoPorts+`,"prevResult":`+out))
	h.must("ADD", id+"2", other, config(""))
	h.must("GC", "", "", config(`,"cni.dev/valid-attachments":[{"containerID":"`+id+`1","ifname":"eth0"}]`))
	h.must("CHECK", id+"1", netns, config(twoPorts+`,"prevResult":`+out))
	if links := h.ip(h.netns, "-o link show master br0"); strings.Count(links, "\n") != 1 {
		t.Errorf("after GC: %s", links)
	}

	h.must("DEL", id+"1", netns, config(""))
	if left := h.leftovers(); left != "" {
		t.Error(left)
	}
}

// damages are what somebody does to the network of a pod, and how CHECK names it.
var damages = []struct {
	name  string
	spoil func(h *host, netns string)
	want  string
}{
	{
		"all rules",
		func(h *host, _ string) { h.nft("flush ruleset") },
		"does not have the rules",
	},
	{
		"the table's rules",
		func(h *host, _ string) { h.nft("flush table inet cni_test") },
		"does not have the rules",
	},
	{
		"one chain's rules",
		func(h *host, _ string) { h.nft("flush chain inet cni_test postrouting") },
		"chain postrouting of nftables table cni_test has 0 rules",
	},
	{
		"the jump",
		func(h *host, _ string) { h.nft("flush chain inet cni_test prerouting") },
		"chain prerouting of nftables table cni_test has 0 rules",
	},
	{
		"a rule, in place",
		func(h *host, _ string) { h.change("inet cni_test postrouting", "!= @nomasq4", "@nomasq4") },
		"of chain postrouting of nftables table cni_test is not as it should be",
	},
	{
		"the destinations",
		func(h *host, _ string) { h.nft("flush set inet cni_test nomasq4") },
		"set nomasq4",
	},
	{
		"a host port",
		func(h *host, _ string) { h.nft("flush map inet cni_test ports4") },
		"host port *:8080/tcp",
	},
	{
		"the pod's MTU",
		func(h *host, netns string) { h.ip(netns, "link set eth0 mtu 1300") },
		"eth0 has MTU 1300, not 1400",
	},
	{
		"the pod's MAC address",
		func(h *host, netns string) { h.ip(netns, "link set eth0 address 02:00:00:00:00:99") },
		"eth0 has MAC address 02:00:00:00:00:99, not",
	},
	{
		"a route",
		func(h *host, netns string) { h.ip(netns, "route del default") },
		"route to 0.0.0.0/0",
	},
}

// What CHECK compares links and addresses by is tested in package bridge.
func TestCheckSeesWhatSomebodyHasTakenAway(t *testing.T) {
	for _, c := range damages {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, `,"mtu":1400`)
			netns := testenv.Netns(t)
			previous := `,"prevResult":` + h.must("ADD", "a", netns, h.config(twoPorts))
			h.must("CHECK", "a", netns, h.config(twoPorts+previous))

			c.spoil(h, netns)
			_, err := h.call("CHECK", "a", netns, h.config(twoPorts+previous))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// Upstream's tuning, behind bridge in a chain, changes the MTU and leaves the result as it is.
func TestAnMTUThatTheResultCannotNameIsNotCompared(t *testing.T) {
	h := newHost(t, `,"mtu":1400`)
	netns := testenv.Netns(t)
	config := func(more string) string {
		return strings.Replace(h.config(more), `"cniVersion":"1.1.0"`, `"cniVersion":"1.0.0"`, 1)
	}

	out := h.must("ADD", "a", netns, config(""))
	if strings.Contains(out, "mtu") {
		t.Errorf("a result of version 1.0.0 has an MTU: %s", out)
	}

	h.ip(netns, "link set eth0 mtu 1300")
	h.must("CHECK", "a", netns, config(`,"prevResult":`+out))
}

// The next pod with an IPv6 address has another MAC address than the one before. Neighbour caches would keep
// that for 20 s at least, longer than dial waits.
func TestReusedIPv6AddressIsReachedAtOnce(t *testing.T) {
	for name, extra := range map[string]string{
		"across the bridge": "",
		"through the host":  `,"hostRouted":true`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, extra)
			neighbour, _, _ := h.pod("neighbour", "")
			address := netip.MustParseAddr("fd88::77")
			wanted := fmt.Sprintf(`,"runtimeConfig":{"ips":["%s"]}`, address)

			for round := range 3 {
				id := fmt.Sprintf("pod-%d", round)
				netns, _, v6 := h.pod(id, wanted)
				if v6 != address {
					t.Fatalf("the pod has %s", v6)
				}

				h.serve(netns, 80)
				h.dialFromAll(neighbour, fmt.Sprintf("[%s]:80", address))
				h.must("DEL", id, netns, h.config(""))
			}
		})
	}
}

// A runtime gives every container a MAC address of its own, and the same IPv4 address.
func TestReusedIPv4AddressWithAnotherMACIsReachedAtOnce(t *testing.T) {
	h := newHost(t, "")
	neighbour, _, _ := h.pod("neighbour", "")
	for round := range 3 {
		id := fmt.Sprintf("pod-%d", round)
		const format = `,"runtimeConfig":{"ips":["10.88.0.77"],"mac":"0a:00:00:00:00:%02x"}`
		netns, v4, _ := h.pod(id, fmt.Sprintf(format, round+1))
		h.serve(netns, 80)
		h.dialFromAll(neighbour, v4.String()+":80")
		h.must("DEL", id, netns, h.config(""))
	}
}

// dialFromAll connects from the host and from a neighbour.
func (h *host) dialFromAll(neighbour, to string) {
	h.t.Helper()
	for name, from := range map[string]string{"the host": h.netns, "a neighbour": neighbour} {
		if _, err := h.dial(from, to); err != nil {
			h.t.Errorf("%s does not reach %s: %v", name, to, err)
		}
	}
}
