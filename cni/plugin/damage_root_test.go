package plugin_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// changeIPTables replaces a text of a table of IPv4, as iptables-save(8) shows it, in the host's namespace.
func (h *host) changeIPTables(table, from, to string) {
	h.t.Helper()
	before := h.program(h.netns, "iptables-save", "iptables", "-t "+table)
	after := strings.Replace(before, from, to, 1)
	if after == before {
		h.t.Fatalf("table %s has no %q: %s", table, from, before)
	}

	restore := exec.Command(testenv.Program(h.t, "iptables-restore", "iptables"))
	restore.Stdin = strings.NewReader(after)
	if _, err := h.run(restore); err != nil {
		h.t.Fatal(err)
	}
}

// The plugins of the cases, of which each is the last one.
const (
	masqueraded   = "masquerade"
	guarded       = "macspoofchk"
	publishing    = "portmap"
	allowing      = "firewall"
	isolating     = "ingressPolicy"
	onePublished  = `,"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80}]}`
	macChain      = "bridge nat cni-br-iface-pod-eth0-mac"
	masqueradings = "inet cni_plugins_masquerade"
)

func (h *host) pluginsOf(kind, backend string) []string {
	named := `,"backend":"` + backend + `"`
	switch kind {
	case masqueraded:
		return []string{h.ptp(`,"ipMasq":true,"ipMasqBackend":"` + backend + `"`)}
	case guarded:
		return []string{h.bridgePlugin(`,"macspoofchk":true`)}
	case publishing:
		return []string{h.ptp(""), `"type":"portmap"` + named + onePublished}
	case isolating:
		named += `,"ingressPolicy":"isolated"`
	}
	return []string{h.bridgePlugin(""), `"type":"firewall"` + named}
}

// ruleDamages are rules that somebody has changed where they are, and how CHECK names it. chain is one of
// nftables, or a table of iptables.
var ruleDamages = []struct {
	kind, backend   string
	chain, from, to string
	want            string
}{
	{
		masqueraded, "nftables", masqueradings + " masq_checks", "masquerade", "return",
		"10.88.0.2 of pod/eth0 is not masqueraded in nftables",
	},
	{
		masqueraded, "nftables", masqueradings + " postrouting", "goto masq_checks", "counter",
		"rule 3 of chain postrouting",
	},
	{masqueraded, "iptables", "nat", "-j MASQUERADE", "-j RETURN", "is not masqueraded in iptables"},
	{masqueraded, "iptables", "nat", "-s 10.88.0.2/32", "-s 10.88.0.3/32", "chain POSTROUTING has no rule"},
	{guarded, "", macChain, "ether saddr", "ether daddr", "rule 1 of chain cni-br-iface-pod-eth0-mac"},
	{guarded, "", macChain, "drop", "accept", "rule 2 of chain cni-br-iface-pod-eth0-mac"},
	{guarded, "", "bridge nat PREROUTING", `iifname "`, `iifname != "`, "leads there from interface"},
	{
		publishing, "nftables", "ip cni_hostport hostports", "dport 8080", "dport 8081",
		"host port *:8080/tcp to 10.88.0.2:80 is not in nftables",
	},
	{
		publishing, "nftables", "ip cni_hostport hostports", "10.88.0.2:80", "10.88.0.2:81",
		"host port *:8080/tcp to 10.88.0.2:80 is not in nftables",
	},
	{
		publishing, "nftables", "ip cni_hostport masquerading", "127.0.0.1", "127.0.0.2",
		"does not masquerade what 10.88.0.2 cannot answer",
	},
	{
		publishing, "nftables", "ip cni_hostport output", "type local", "type unicast",
		"chain output of nftables table cni_hostport does not lead",
	},
	{
		publishing, "nftables", "ip cni_hostport trivet_loopback", "drop", "accept",
		"rule 1 of chain trivet_loopback",
	},
	{publishing, "iptables", "nat", "10.88.0.2:80", "10.88.0.2:81", "does not have the rule"},
	{
		publishing, "iptables", "nat", "xmark 0x2000", "xmark 0x4000",
		`does not have the rule "CNI-HOSTPORT-SETMARK`,
	},
	{
		publishing, "iptables", "nat", "--mark 0x2000", "--mark 0x4000",
		`does not have the rule "CNI-HOSTPORT-MASQ`,
	},
	{publishing, "iptables", "nat", "type LOCAL", "type UNICAST", `does not have the rule "PREROUTING`},
	{publishing, "iptables", "nat", "--dports 8080", "--dports 8081", "is not in chain CNI-HOSTPORT-DNAT"},
	{
		allowing, "iptables", "filter", "-s 10.88.0.2/32 -j ACCEPT", "-s 10.88.0.2/32 -j DROP",
		"CNI-FORWARD of",
	},
	{
		allowing, "iptables", "filter", "-A FORWARD -m", "-A FORWARD -s 192.0.2.9 -m",
		"chain FORWARD of iptables",
	},
	{isolating, "iptables", "filter", "-o br0", "-o br1", "is not isolated: chain CNI-ISOLATION-STAGE-"},
	{
		isolating, "nftables", "inet cni_firewall isolation", "drop", "accept",
		"not have the rule of same-bridge",
	},
}

func TestCheckSeesRulesThatSomebodyHasChanged(t *testing.T) {
	for _, d := range ruleDamages {
		t.Run(d.kind+" "+d.backend+" "+d.from, func(t *testing.T) {
			h := newHost(t, "")
			c := h.newChain("pod", h.pluginsOf(d.kind, d.backend)...)
			if err := c.check(); err != nil {
				t.Fatal(err)
			}

			if d.backend == "iptables" {
				h.changeIPTables(d.chain, d.from, d.to)
			} else {
				h.change(d.chain, d.from, d.to)
			}
			if err := c.check(); err == nil || !strings.Contains(unquoted(err), d.want) {
				t.Errorf("%v, want %q", err, d.want)
			}

			// What keeps bridges apart is the bridge's.
			c.del()
			if left := h.remains(); left != "" && d.kind != isolating {
				t.Error(left)
			}
		})
	}
}

// unquoted is the text of an error that the plugin has written as JSON.
func unquoted(err error) string { return strings.ReplaceAll(err.Error(), `\"`, `"`) }

func TestCheckSeesABridgeThatIsNotIsolatedAnyMore(t *testing.T) {
	h := newHost(t, "")
	c := h.newChain("pod", h.pluginsOf(isolating, "nftables")...)
	h.nft("flush set inet cni_firewall bridges")
	if err := c.check(); err == nil || !strings.Contains(err.Error(), "it is not in set bridges") {
		t.Error(err)
	}

	// What another ADD of the bridge writes is the bridge's.
	h.change("inet cni_firewall isolation", "drop", "accept")
	h.newChain("other", h.pluginsOf(isolating, "nftables")...)
	if err := c.check(); err != nil {
		t.Error(err)
	}
}
