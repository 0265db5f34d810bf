package plugin_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// statuses are plugins that need something, with a word of what STATUS says where that is missing. without is
// a PATH that has no program.
var statuses = []struct {
	name    string
	plugin  func(h *host) string
	without string
	want    string
}{
	{"ptp, nftables", ofPTP("nftables"), "/nowhere", ""},
	{"ptp, iptables", ofPTP("iptables"), "", ""},
	{"ptp without iptables", ofPTP("iptables"), "/nowhere", "iptables: not installed"},
	{
		"bridge without iptables", ofBridge(`,"ipMasq":true,"ipMasqBackend":"iptables"`),
		"/nowhere", "not installed",
	},
	{"bridge, macspoofchk", ofBridge(`,"macspoofchk":true`), "/nowhere", ""},
	{"bridge, masquerade", ofBridge(`,"ipMasq":true`), "/nowhere", ""},
	{"portmap, nftables", keys(`"type":"portmap","backend":"nftables"`), "/nowhere", ""},
	{"portmap, iptables", keys(`"type":"portmap","backend":"iptables"`), "", ""},
	{"portmap without iptables", keys(`"type":"portmap","backend":"iptables"`), "/nowhere", "not installed"},
	{"portmap, conditions", conditional("ip saddr != 192.0.2.9"), "", ""},
	{"portmap, conditions without nft", conditional("ip saddr != 192.0.2.9"), "/nowhere", "nft"},
	{"portmap, conditions of nothing", conditional("no such match"), "", "no such match"},
	{"portmap, conditions of a set", conditional("ip saddr @trusted"), "", ""},
	{
		"portmap, conditions of an ipset",
		keys(`"type":"portmap","backend":"iptables","conditionsV4":["-m","set","--match-set","own","src"]`),
		"", "",
	},
	{
		"portmap, a chain of kube-proxy",
		keys(`"type":"portmap","backend":"iptables","snat":true,"externalSetMarkChain":"KUBE-MARK-MASQ"`),
		"", "",
	},
	{"firewall, iptables", keys(`"type":"firewall","backend":"iptables"`), "", ""},
	{
		"firewall without iptables", keys(`"type":"firewall","backend":"iptables"`),
		"/nowhere", "not installed",
	},
	{"firewall without firewalld", keys(`"type":"firewall","backend":"firewalld"`), "", "firewalld"},
	{
		"firewall, isolated", keys(`"type":"firewall","backend":"nftables","ingressPolicy":"isolated"`),
		"/nowhere", "",
	},
	{"bandwidth", keys(`"type":"bandwidth"`), "/nowhere", ""},
	{"bridge, sourceGuard", ofBridge(`,"sourceGuard":true`), "/nowhere", ""},
}

func keys(text string) func(*host) string { return func(*host) string { return text } }

func ofPTP(backend string) func(*host) string {
	return func(h *host) string { return h.ptp(`,"ipMasq":true,"ipMasqBackend":"` + backend + `"`) }
}

func ofBridge(more string) func(*host) string {
	return func(h *host) string { return h.bridgePlugin(more) }
}

func conditional(condition string) func(*host) string {
	return keys(`"type":"portmap","backend":"nftables","conditionsV4":["` + condition + `"]`)
}

func TestStatusSaysWhatTheNextAddWouldLack(t *testing.T) {
	testenv.Program(t, "iptables", "iptables")
	testenv.Program(t, "nft", "nftables")
	for _, s := range statuses {
		t.Run(s.name, func(t *testing.T) {
			h := newHost(t, "")
			config := `{"cniVersion":"1.1.0","name":"test",` + s.plugin(h) + `}`
			c := h.command("STATUS", "", "", config)

			// This machine may have a firewalld.
			c.Env = append(c.Env, "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere")
			if s.without != "" {
				c.Env = append(c.Env, "PATH="+s.without)
			}

			_, err := h.run(c)
			switch {
			case s.want == "" && err != nil:
				t.Error(err)
			case s.want == "":
			case err == nil, !strings.Contains(err.Error(), s.want),
				!strings.Contains(err.Error(), `"code": 50`):

				t.Errorf("%v, want %q", err, s.want)
			}

			// It is asked periodically, and makes nothing.
			if left := h.remains(); left != "" {
				t.Error(left)
			}
			if links := h.ip(h.netns, "-o link show"); strings.Count(links, "\n") != 1 {
				t.Error(links)
			}
		})
	}
}

func TestStatusSaysThatTheKernelHasNoVLANsOnBridges(t *testing.T) {
	h := newHost(t, "")
	probe := exec.Command(testenv.Program(t, "unshare", "util-linux"), "--net",
		"ip", "link", "add", "probe", "type", "bridge", "vlan_filtering", "1")
	hasVLANs := probe.Run() == nil

	config := `{"cniVersion":"1.1.0","name":"test",` + h.bridgePlugin(`,"vlan":100`) + `}`
	_, err := h.call("STATUS", "", "", config)
	isNamed := err != nil && strings.Contains(err.Error(), "CONFIG_BRIDGE_VLAN_FILTERING")
	if hasVLANs != (err == nil) || !hasVLANs && !isNamed {
		t.Errorf("the kernel has VLANs on bridges: %v, and STATUS says %v", hasVLANs, err)
	}
}
