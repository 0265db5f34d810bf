package plugin_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// unnamed takes away what our plugins write beside upstream's rules and interfaces, by which they find whose
// these are.
func (h *host) unnamed() {
	h.t.Helper()
	for _, family := range []string{"ip", "ip6"} {
		h.nft("flush chain " + family + " cni_hostport hostip_hostports")
	}
	h.in(h.netns, func() error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		for _, device := range h.ifbs() {
			err = errors.Join(err, c.Must(rtnl.SetAlias(device, "")))
		}
		return err
	})

	records, _ := filepath.Glob("/run/cni/firewall/*")
	for _, r := range records {
		if content, _ := os.ReadFile(r); strings.Contains(string(content), mark()) {
			if err := os.Remove(r); err != nil {
				h.t.Error(err)
			}
		}
	}
}

// ifbs are those of limits.
func (h *host) ifbs() (names []string) {
	h.t.Helper()
	for line := range strings.Lines(h.ip(h.netns, "-o link show type ifb")) {
		names = append(names, strings.TrimSuffix(strings.Fields(line)[1], ":"))
	}
	return names
}

// Upstream's portmap, firewall and bandwidth name a container or an address, and no network. That is in the
// reservation, which the main plugin has.
func TestGCOfTheMainPluginTakesWhatUpstreamsLeave(t *testing.T) {
	for name, main := range map[string]func(h *host) string{
		"bridge": func(h *host) string { return h.bridgePlugin("") },
		"ptp":    func(h *host) string { return h.ptp("") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "")
			pod := func(id string, port int) *chain {
				const ports = `"type":"portmap","backend":"nftables","runtimeConfig":{"portMappings":[
					{"hostPort":%d,"containerPort":80}]}`
				return h.newChain(id+mark(), main(h), fmt.Sprintf(ports, port),
					`"type":"firewall","backend":"iptables"`, `"type":"bandwidth",`+limits)
			}

			ended, stays := pod("ended", 8080), pod("stays", 8081)
			h.unnamed()
			const format = `{"cniVersion":"1.1.0","name":"test",%s,
				"cni.dev/valid-attachments":[{"containerID":%q,"ifname":"eth0"}]}`
			h.must("GC", "", "", fmt.Sprintf(format, main(h), stays.id))

			rules := h.program(h.netns, "nft", "nftables", "list ruleset") +
				h.program(h.netns, "iptables", "iptables", "-S CNI-FORWARD") +
				h.program(h.netns, "ip6tables", "iptables", "-S CNI-FORWARD")
			for _, is6 := range []bool{false, true} {
				if a := ended.address(is6).String(); strings.Contains(rules, a) {
					t.Errorf("rules of %s are left: %s", a, rules)
				}
			}
			if left := h.ifbs(); len(left) != 1 {
				t.Errorf("interfaces of limits: %q", left)
			}

			if err := stays.check(); err != nil {
				t.Error(err)
			}
			stays.del()
			if left := h.remains(); left != "" {
				t.Error(left)
			}
		})
	}
}
