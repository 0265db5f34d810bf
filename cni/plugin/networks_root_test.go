package plugin_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// second is the configuration of another network with default routes of its own.
func (h *host) second(more string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"other","type":"trivet-cni","bridge":"br1",
		"isDefaultGateway":true,"ipMasq":true,"ipam":{"type":"host-local","dataDir":%q,
		"ranges":[[{"subnet":"10.89.0.0/24"}],[{"subnet":"fd89::/64"}]]}%s}`, h.dataDir, more)
}

func TestSecondNetworkLeavesTheFirstOnesRoutes(t *testing.T) {
	h := newHost(t, "")
	netns, _, _ := h.pod("a", "")
	before := h.defaultRoutes(netns)

	out, err := h.callAs("trivet-cni", "ADD", "a", netns, "eth1", h.second(""))
	if err != nil {
		t.Fatal(err)
	}

	now := h.defaultRoutes(netns)
	for _, gateway := range []string{"10.88.0.1", "10.89.0.1", "fd88::1", "fd89::1"} {
		if !strings.Contains(now, "via "+gateway) {
			t.Errorf("no default route through %s: %s", gateway, now)
		}
	}

	previous := h.second(`,"prevResult":` + out)
	if _, err := h.callAs("trivet-cni", "CHECK", "a", netns, "eth1", previous); err != nil {
		t.Error(err)
	}

	h.checkFirst(netns)

	if _, err := h.callAs("trivet-cni", "DEL", "a", netns, "eth1", h.second("")); err != nil {
		t.Fatal(err)
	}
	if now := h.defaultRoutes(netns); now != before {
		t.Errorf("default routes before %s, after %s", before, now)
	}

	h.checkFirst(netns)
}

// defaultRoutes are those of a namespace, of both families.
func (h *host) defaultRoutes(netns string) string {
	h.t.Helper()
	return h.ip(netns, "-4 route show default") + h.ip(netns, "-6 route show default")
}

// checkFirst calls CHECK for pod a of the first network, which has the first addresses.
func (h *host) checkFirst(netns string) {
	h.t.Helper()
	const result = `,"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":%q}],
		"ips":[{"interface":0,"address":"10.88.0.2/24","gateway":"10.88.0.1"},
		{"interface":0,"address":"fd88::2/64","gateway":"fd88::1"}]}`
	if _, err := h.call("CHECK", "a", netns, h.config(fmt.Sprintf(result, netns))); err != nil {
		h.t.Error(err)
	}
}

func TestCheckFindsRoutesOfOtherTables(t *testing.T) {
	h := newHost(t, "")
	netns := testenv.Netns(t)
	const routes = `"routes":[{"dst":"192.0.2.0/24","table":77},
		{"dst":"198.51.100.0/24"},{"dst":"198.51.100.0/24"}],"ranges"`
	config := strings.Replace(h.config(""), `"ranges"`, routes, 1)
	out := h.must("ADD", "a", netns, config)
	check := strings.TrimSuffix(config, "}") + `,"prevResult":` + out + "}"
	h.must("CHECK", "a", netns, check)

	h.ip(netns, "route del 192.0.2.0/24 table 77")
	_, err := h.call("CHECK", "a", netns, check)
	if err == nil || !strings.Contains(err.Error(), "route to 192.0.2.0/24") {
		t.Errorf("CHECK without the route: %v", err)
	}
}

// A runtime calls DEL after an ADD that failed because another network has an interface of that name.
func TestDelTakesNoOtherNetworksInterface(t *testing.T) {
	h := newHost(t, "")
	netns, _, _ := h.pod("a", "")
	if _, err := h.call("ADD", "a", netns, h.second("")); err == nil {
		t.Fatal("a second eth0")
	}
	h.must("DEL", "a", netns, h.second(""))
	h.must("DEL", "a", netns, strings.Replace(h.second(""), "br1", "br0", 1))
	h.checkFirst(netns)
	h.must("DEL", "a", netns, h.config(""))
}

// What upstream's bridge made has a host's end of any name and no alias.
func TestDelTakesApartWhatUpstreamsBridgeMade(t *testing.T) {
	h := newHost(t, "")
	h.pod("makes-the-bridge", "")
	before := h.leftovers()
	netns := testenv.Netns(t)
	h.ip(h.netns, "link add veth12345678 type veth peer name tmp0")
	h.ip(h.netns, "link set veth12345678 master br0")
	h.ip(h.netns, "link set tmp0 netns "+netns)
	h.ip(netns, "link set tmp0 name eth0")

	// This is the network of another bridge.
	h.must("DEL", "upstream", netns, h.second(""))
	if now := h.leftovers(); !strings.Contains(now, "veth12345678") {
		t.Errorf("DEL for another bridge took it: %s", now)
	}

	h.must("DEL", "upstream", netns, h.config(""))
	if now := h.leftovers(); now != before {
		t.Errorf("before %s, after %s", before, now)
	}
}

func TestLoopbackNeedsNoTypeAndNoArgs(t *testing.T) {
	h := newHost(t, "")
	netns := testenv.Netns(t)
	c := h.command("ADD", "a", netns, `{"cniVersion":"1.0.0","name":"lo"}`)
	c.Args = []string{"/opt/cni/bin/loopback"}
	c.Env = append(c.Env, "CNI_ARGS=none")
	if out, err := h.run(c); err != nil {
		t.Error(out, err)
	}
	if lo := h.ip(netns, "link show lo"); !strings.Contains(lo, "LOWER_UP") {
		t.Error(lo)
	}
}
