package plugin_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMACSpoofCheckDropsOtherAddresses(t *testing.T) {
	for _, plugin := range []string{"bridge", "trivet-cni"} {
		t.Run(plugin, func(t *testing.T) { checkMACSpoofing(t, plugin) })
	}
}

func checkMACSpoofing(t *testing.T, plugin string) {
	h := newHost(t, "")
	keys := h.bridgePlugin(`,"macspoofchk":true`)
	c := h.newChain("pod", strings.Replace(keys, `"type":"bridge"`, `"type":"`+plugin+`"`, 1))
	h.serve(h.netns, 80)
	if _, err := h.dial(c.netns, "10.88.0.1:80"); err != nil {
		t.Error(err)
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}

	h.ip(c.netns, "link set eth0 address 02:00:00:00:00:99")
	if reaches(c.netns, "10.88.0.1:80") {
		t.Error("a pod sends with another MAC address")
	}

	c.del()
	if left := h.remains(); left != "" {
		t.Error(left)
	}
}

func TestVLANsNeedAKernelThatHasThem(t *testing.T) {
	h := newHost(t, "")
	keys := h.bridgePlugin(`,"vlan":100`)
	out, err := h.call("ADD", "pod", testenv.Netns(t), `{"cniVersion":"1.1.0","name":"test",`+keys+`}`)
	if err != nil {
		if !strings.Contains(out, "CONFIG_BRIDGE_VLAN_FILTERING") {
			t.Error(out)
		}
		if left := h.remains(); left != "" {
			t.Error(left)
		}
		return
	}

	if vlans := h.program(h.netns, "bridge", "iproute2", "vlan show"); !strings.Contains(vlans, "100 PVID") {
		t.Error(vlans)
	}
}

func TestDisabledContainerInterfaceStaysDown(t *testing.T) {
	h := newHost(t, "")
	keys := `"type":"bridge","bridge":"br0","disableContainerInterface":true`
	c := h.newChain("pod", keys)
	if link := h.ip(c.netns, "link show eth0"); strings.Contains(link, "UP") {
		t.Error(link)
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}
	c.del()
}

func TestTuningIsTakenBack(t *testing.T) {
	h := newHost(t, "")
	tune := fmt.Sprintf(`"type":"tuning","dataDir":%q,"mtu":1300,"promisc":true,"allmulti":true,"txQLen":50,
		"mac":"02:00:00:00:00:42","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}`, t.TempDir())
	c := h.newChain("pod", h.bridgePlugin(""), tune)
	link := h.ip(c.netns, "-d link show eth0")
	for _, want := range []string{"mtu 1300", "PROMISC", "ALLMULTI", "qlen 50", "02:00:00:00:00:42"} {
		if !strings.Contains(link, want) {
			t.Errorf("%s is not in %s", want, link)
		}
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}

	h.must("DEL", c.id, c.netns, c.config(tune))
	link = h.ip(c.netns, "-d link show eth0")
	for _, gone := range []string{"mtu 1300", "PROMISC", "ALLMULTI", "qlen 50", "02:00:00:00:00:42"} {
		if strings.Contains(link, gone) {
			t.Errorf("%s is in %s", gone, link)
		}
	}
	c.del()
}

func TestSourceRoutesAnswerByTheInterfaceThatWasAsked(t *testing.T) {
	h := newHost(t, "")
	c := h.newChain("pod", h.bridgePlugin(""), `"type":"sbr"`)

	// The main plugin looks for its routes where they are not any more, as upstream's does.
	h.must("CHECK", c.id, c.netns, c.config(`"type":"sbr"`))

	rules := h.ip(c.netns, "rule show")
	if !strings.Contains(rules, fmt.Sprintf("from %s lookup 100", c.address(false))) {
		t.Error(rules)
	}
	if routes := h.ip(c.netns, "route show table 100"); !strings.Contains(routes, "default via 10.88.0.1") {
		t.Error(routes)
	}
	if routes := h.ip(c.netns, "route show"); routes != "" {
		t.Errorf("left in the main table: %s", routes)
	}

	h.serve(c.netns, 80)
	if _, err := h.dial(h.netns, netip.AddrPortFrom(c.address(false), 80).String()); err != nil {
		t.Error(err)
	}

	h.must("DEL", c.id, c.netns, c.config(`"type":"sbr"`))
	if rules := h.ip(c.netns, "rule show"); strings.Contains(rules, "lookup 100") {
		t.Error(rules)
	}
}

func TestFirewallLetsPodsThroughWhatDropsForwardedPackets(t *testing.T) {
	h := newHost(t, "")
	beyond := h.uplink("192.0.2.1/24")
	h.ip(beyond, "addr add 192.0.2.2/24 dev up1")
	h.ip(beyond, "route add 10.88.0.0/24 via 192.0.2.1")
	h.serve(beyond, 80)
	h.program(h.netns, "iptables", "iptables", "-P FORWARD DROP")

	c := h.newChain("pod", h.bridgePlugin(""))
	if reaches(c.netns, "192.0.2.2:80") {
		t.Fatal("nothing is dropped")
	}

	c.plugins = append(c.plugins, `"type":"firewall"`)
	c.result = h.must("ADD", c.id, c.netns, c.config(c.plugins[1]))
	if _, err := h.dial(c.netns, "192.0.2.2:80"); err != nil {
		t.Error(err)
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}

	c.del()
	rules := h.program(h.netns, "iptables", "iptables", "-S")
	if strings.Contains(rules, "10.88.0.") {
		t.Error(rules)
	}
}

func TestIngressPolicyKeepsBridgesApart(t *testing.T) {
	for _, backend := range []string{"iptables", "nftables"} {
		t.Run(backend, func(t *testing.T) {
			h := newHost(t, "")
			firewall := `"type":"firewall","ingressPolicy":"same-bridge","backend":"` + backend + `"`
			other := strings.NewReplacer("br0", "br1", "10.88.0", "10.89.0", "fd88:", "fd89:")
			a := h.newChain("a", h.bridgePlugin(""), firewall)
			near := h.newChain("near", h.bridgePlugin(""), firewall)
			far := h.newChain("far", other.Replace(h.bridgePlugin("")), firewall)
			h.serve(a.netns, 80)
			to := net.JoinHostPort(a.address(false).String(), "80")
			if _, err := h.dial(near.netns, to); err != nil {
				t.Error(err)
			}
			if reaches(far.netns, to) {
				t.Error("a pod of another bridge gets through")
			}
			if err := a.check(); err != nil {
				t.Error(err)
			}

			for _, c := range []*chain{a, near, far} {
				c.del()
			}
		})
	}
}

// An address is given to the next container before the DEL of the one before comes.
func TestFirewallOfTheNextContainerOutlivesALateDel(t *testing.T) {
	h := newHost(t, "")
	firewall := `"type":"firewall","backend":"iptables"`
	const previous = `{"cniVersion":"1.1.0","ips":[{"address":"10.88.0.77/24"}]}`
	add := func(id string) *chain {
		c := &chain{
			host:    h,
			id:      id,
			netns:   testenv.Netns(t),
			plugins: []string{firewall},
			result:  previous,
		}
		h.must("ADD", c.id, c.netns, c.config(firewall))
		return c
	}

	first := add("first")
	next := add("next")

	first.del()
	if err := next.check(); err != nil {
		t.Error(err)
	}

	// What is on record of a container that nobody has deleted does not keep the rules of the one after it.
	add("last").del()
	if rules := h.program(h.netns, "iptables", "iptables", "-S"); strings.Contains(rules, "10.88.0.77") {
		t.Error(rules)
	}

	next.del()
}
