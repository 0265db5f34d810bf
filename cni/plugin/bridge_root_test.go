package plugin_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestBridgeOfSomebodyElseKeepsItsMAC(t *testing.T) {
	h := newHost(t, "")
	h.ip(h.netns, "link add br0 type bridge")
	h.ip(h.netns, "link add passing master br0 type veth peer name peer")

	// the bridge has no address now
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
	network, id := strings.Repeat("n", 200), strings.Repeat("c", 200)
	config := func(more string) string {
		return strings.Replace(h.config(more), `"name":"test"`, `"name":"`+network+`"`, 1)
	}
	netns, other := testenv.Netns(t), testenv.Netns(t)
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

func TestStatusTellsThatTheBridgeHasAnotherGateway(t *testing.T) {
	h := newHost(t, "")
	h.pod("a", "")
	h.must("STATUS", "", "", h.config(""))
	moved := strings.ReplaceAll(h.config(""), "10.88.0.0/24", "10.88.7.0/24")
	_, err := h.call("STATUS", "", "", moved)
	if err == nil || !strings.Contains(err.Error(), `"code": 50`) ||
		!strings.Contains(err.Error(), "has address 10.88.0.1/24 already") {
		t.Errorf("STATUS: %v", err)
	}

	if _, err := h.call("ADD", "b", testenv.Netns(t), moved); err == nil {
		t.Error("STATUS is bad and ADD works")
	}

	h.must("STATUS", "", "", strings.Replace(moved, `"ipMasq"`, `"forceAddress":true,"ipMasq"`, 1))
}

func TestCheckSeesRulesMTUAndMAC(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(h *host, netns string)
		want  string
	}{
		"all rules": {func(h *host, _ string) { h.nft("flush ruleset") }, "has not the rules"},
		"the table's rules": {func(h *host, _ string) { h.nft("flush table inet cni_test") },
			"has not the rules"},
		"one chain's rules": {func(h *host, _ string) { h.nft("flush chain inet cni_test postrouting") },
			"chain postrouting of nftables table cni_test has 0 rules"},
		"the jump": {func(h *host, _ string) { h.nft("flush chain inet cni_test prerouting") },
			"chain hostports"},
		"the destinations": {func(h *host, _ string) { h.nft("flush set inet cni_test nomasq4") },
			"set nomasq4"},
		"the pod's MTU": {func(h *host, netns string) { h.ip(netns, "link set eth0 mtu 1300") },
			"eth0 has MTU 1300, not 1400"},
		"the pod's MAC": {func(h *host, netns string) {
			h.ip(netns,
				"link set eth0 address 0a:00:00:00:00:07")
		}, "has MAC address 0a:00:00:00:00:07"},
		"a host port": {func(h *host, _ string) { h.nft("flush map inet cni_test ports4") },
			"host port *:8080/tcp"},
		"the host end's MTU": {func(h *host, _ string) { h.ip(h.netns, "link set "+h.port()+" mtu 1300") },
			"has MTU 1300, not 1400"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, `,"mtu":1400`)
			netns := testenv.Netns(t)
			prev := `,"prevResult":` + h.must("ADD", "a", netns, h.config(twoPorts))
			h.must("CHECK", "a", netns, h.config(twoPorts+prev))
			c.spoil(h, netns)
			_, err := h.call("CHECK", "a", netns, h.config(twoPorts+prev))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// port is the host's end of the one pod that there is.
func (h *host) port() string {
	_, name, _ := strings.Cut(h.ip(h.netns, "-o link show master br0"), ": ")
	name, _, _ = strings.Cut(name, "@")
	return name
}

// The next pod with an IPv6 address has another MAC address than the one before.
func TestReusedIPv6AddressIsReachedAtOnce(t *testing.T) {
	for name, extra := range map[string]string{"across the bridge": "",
		"through the host": `,"hostRouted":true`} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, extra)
			neighbour, _, _ := h.pod("neighbour", "")
			address := netip.MustParseAddr("fd88::77")
			asked := fmt.Sprintf(`,"runtimeConfig":{"ips":["%s"]}`, address)
			to := fmt.Sprintf("[%s]:80", address)
			for round := range 3 {
				id := fmt.Sprintf("pod-%d", round)
				netns, _, v6 := h.pod(id, asked)
				if v6 != address {
					t.Fatalf("the pod has %s", v6)
				}

				h.serve(netns, 80)
				for who, from := range map[string]string{"the host": h.netns, "a neighbour": neighbour} {
					began := time.Now()
					if _, err := h.dial(from, to); err != nil || time.Since(began) > 2500*time.Millisecond {
						t.Errorf("round %d: %s reaches it after %s: %v", round, who,
							time.Since(began).Round(time.Millisecond), err)
					}
				}

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
		netns, v4,
			_ := h.pod(id, fmt.Sprintf(`,"runtimeConfig":{"ips":["10.88.0.77"],"mac":"0a:00:00:00:00:%02x"}`,
			round+1))
		h.serve(netns, 80)
		for who, from := range map[string]string{"the host": h.netns, "a neighbour": neighbour} {
			began := time.Now()
			_, err := h.dial(from, v4.String()+":80")
			if err != nil || time.Since(began) > 2500*time.Millisecond {
				t.Errorf("round %d: %s reaches it after %s: %v", round, who,
					time.Since(began).Round(time.Millisecond), err)
			}
		}

		h.must("DEL", id, netns, h.config(""))
	}
}
