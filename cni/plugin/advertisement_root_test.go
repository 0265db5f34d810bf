package plugin_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// acceptRA is the kernel's setting for eth0 of a pod.
func (h *host) acceptRA(netns string) (value string) {
	h.t.Helper()
	h.in(netns, func() error {
		text, err := os.ReadFile("/proc/sys/net/ipv6/conf/eth0/accept_ra")
		value = strings.TrimSpace(string(text))
		return err
	})
	return value
}

// Any pod on the bridge can say that it is a router, and others would send to it (CVE-2020-10749).
func TestPodsTakeNoRouterAdvertisements(t *testing.T) {
	h := newHost(t, "")
	both, _, _ := h.pod("both", "")
	if got := h.acceptRA(both); got != "0" {
		t.Errorf("accept_ra of a pod is %s", got)
	}

	const config = `{"cniVersion":"1.1.0","name":"only4","type":"trivet-cni","bridge":"br4","isGateway":true,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.89.0.0/24"}}`
	only4 := testenv.Netns(t)
	h.must("ADD", "only4", only4, fmt.Sprintf(config, h.dataDir))
	if got := h.acceptRA(only4); got != "0" {
		t.Errorf("accept_ra of a pod that has IPv4 alone is %s", got)
	}
}

// On a network without IPAM, addresses come from a router.
func TestRouterAdvertisementsAreTheAddressesOfANetworkWithoutIPAM(t *testing.T) {
	h := newHost(t, "")
	pod := testenv.Netns(t)
	h.must("ADD", "pod", pod, `{"cniVersion":"1.1.0","name":"lan","type":"trivet-cni","bridge":"br1"}`)
	if got := h.acceptRA(pod); got != "1" {
		t.Errorf("accept_ra is %s", got)
	}
}
