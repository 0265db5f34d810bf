package plugin_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/testenv"
)

// read returns a file as a process in the host's namespace sees it.
func (h *host) read(path string) string {
	h.t.Helper()
	var data []byte
	h.in(h.netns, func() (err error) {
		data, err = os.ReadFile(path)
		return err
	})
	return strings.TrimSpace(string(data))
}

// rules is the network's table without its elements and handles.
func (h *host) rules() string {
	h.t.Helper()
	program := testenv.Program(h.t, "nft", "nftables")
	var out []byte
	h.in(h.netns, func() (err error) {
		out, err = exec.Command(program, "list", "table", "inet", "cni_test").Output()
		return err
	})
	return string(out)
}

func (h *host) bridge() (link rtnl.Link) {
	h.t.Helper()
	h.in(h.netns, func() error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		link, err = c.LinkByName("br0")
		return err
	})
	return link
}

// Without the rule that guards it, the sysctl would let pods reach what listens on the host's 127.0.0.1.
func TestLoopbackIsRoutedOnlyBehindItsRule(t *testing.T) {
	h := newHost(t, "")
	const sysctl = "/proc/sys/net/ipv4/conf/br0/route_localnet"
	plain := strings.Replace(h.config(""), `"ipMasq":true`, `"ipMasq":false`, 1)
	h.must("ADD", "plain", testenv.Netns(t), plain)
	h.pod("masqueraded", "")
	if got := h.read(sysctl); got != "0" {
		t.Errorf("route_localnet is %s without any host port", got)
	}

	h.pod("with-ports", twoPorts)
	if got := h.read(sysctl); got != "1" ||
		!strings.Contains(h.rules(), `iifname "br0" ip daddr 127.0.0.0/8 drop`) {
		t.Errorf("route_localnet is %s with\n%s", got, h.rules())
	}
}

func TestSecondADDLeavesTheFirstOnesInterface(t *testing.T) {
	h := newHost(t, "")
	const layer2 = `{"cniVersion":"1.1.0","name":"test","type":"trivet-cni","bridge":"br0"}`
	netns := testenv.Netns(t)
	h.must("ADD", "a", netns, layer2)
	before := h.leftovers()
	_, err := h.call("ADD", "a", netns, layer2)
	if err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a second ADD: %v", err)
	}
	if now := h.leftovers(); now != before || now == "" {
		t.Errorf("before %q, after %q", before, now)
	}
}

func TestBridgeFollowsTheConfiguredMTU(t *testing.T) {
	h := newHost(t, "")
	for _, mtu := range []int{1400, 1300, 1450} {
		config := h.config(fmt.Sprintf(`,"mtu":%d`, mtu))
		out := h.must("ADD", fmt.Sprintf("pod-%d", mtu), testenv.Netns(t), config)
		if got := h.bridge().MTU; got != mtu || strings.Count(out, fmt.Sprintf(`"mtu": %d`, mtu)) != 3 {
			t.Errorf("mtu %d is configured, the bridge has %d: %s", mtu, got, out)
		}
	}
}

// Many first ADDs, and many after a change of the configuration: each succeeds, and the rules are there once.
func TestManyMakeTheRulesAtOnce(t *testing.T) {
	h := newHost(t, "")
	for round := range 4 {
		more := fmt.Sprintf(`,"noMasq":["10.%d.0.0/16"]`, round)
		var group sync.WaitGroup
		for i := range 12 {
			netns := testenv.Netns(t)
			group.Go(func() {
				id := fmt.Sprintf("pod-%d-%d", round, i)
				if _, err := h.call("ADD", id, netns, h.config(more)); err != nil {
					t.Error(err)
				}
			})
		}

		group.Wait()

		rules := h.rules()
		if strings.Count(rules, "@nomasq4 masquerade") != 1 || strings.Count(rules, "chain config_") != 1 ||
			!strings.Contains(rules, fmt.Sprintf("10.%d.0.0/16", round)) {
			t.Errorf("round %d:\n%s", round, rules)
		}
	}
}

// A range that the runtime asks for one pod changes nothing for the others, and is masqueraded too.
func TestRangeOfOnePodIsItsOwn(t *testing.T) {
	h := newHost(t, "")
	h.pod("first", "")
	before := h.rules()
	netns := testenv.Netns(t)
	h.must("ADD", "second", netns, h.config(`,"runtimeConfig":{"ipRanges":[[{"subnet":"fd77::/64"}]]}`))
	if after := h.rules(); after != before {
		t.Errorf("rules before\n%s\nafter\n%s", before, after)
	}

	beyond := h.uplink("fd02::1/64 nodad")
	h.ip(beyond, "addr add fd02::2/64 dev up1 nodad")
	h.serve(beyond, 80)
	seen := make([]byte, 64)
	var n int
	h.in(netns, func() error {
		// The pod has an address of the network's range as well.
		own := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[fd77::2]:0"))
		d := net.Dialer{Timeout: time.Minute, LocalAddr: own}
		c, err := d.Dial("tcp", "[fd02::2]:80")
		if err != nil {
			return err
		}
		defer c.Close()

		n, err = c.Read(seen)
		return err
	})
	if got := string(seen[:n]); got != "fd02::1" {
		t.Errorf("the pod's own range is seen as %s", got)
	}
}
