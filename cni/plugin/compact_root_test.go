package plugin_test

import (
	"net"
	"strings"
	"testing"
)

// compact is one entry that does what bridge, portmap, bandwidth and firewall do.
func (h *host) compact(ingressPolicy, more string) string {
	main := strings.Replace(h.bridgePlugin(""), `"bridge"`, `"trivet-cni"`, 1)
	return main + `,"ipMasq":true,"hostRouted":true,"ingressPolicy":"` + ingressPolicy + `"` + more
}

func TestOneEntryKeepsBridgesAndPodsApart(t *testing.T) {
	h := newHost(t, "")
	// Of two keys of one name the last one counts.
	replacer := strings.NewReplacer("br0", "br1", "10.88.0", "10.89.0", "fd88:", "fd89:")
	elsewhere := replacer.Replace(h.compact("same-bridge", `,"name":"other"`))
	a := h.newChain("a", h.compact("isolated", ""))
	near := h.newChain("near", h.compact("isolated", ""))
	far := h.newChain("far", elsewhere)
	besideFar := h.newChain("beside", elsewhere)
	h.serve(a.netns, 80)
	h.serve(far.netns, 80)

	for _, from := range []*chain{near, far} {
		for _, is6 := range []bool{false, true} {
			to := net.JoinHostPort(a.address(is6).String(), "80")
			if reaches(from.netns, to) {
				t.Errorf("%s reaches %s", from.id, to)
			}
		}
	}

	for _, reach := range []struct {
		netns string
		to    *chain
	}{{h.netns, a}, {besideFar.netns, far}} {
		to := net.JoinHostPort(reach.to.address(false).String(), "80")
		if _, err := h.dial(reach.netns, to); err != nil {
			t.Error(err)
		}
	}

	for _, c := range []*chain{a, near, far, besideFar} {
		if err := c.check(); err != nil {
			t.Error(err)
		}
	}

	h.nft("delete table inet cni_firewall")
	if err := a.check(); err == nil || !strings.Contains(err.Error(), "cni_firewall") {
		t.Errorf("CHECK without the rules: %v", err)
	}
}

func TestOneEntryTakesBackAllThatItDoes(t *testing.T) {
	h := newHost(t, "")
	h.uplink("192.0.2.1/24")
	keys := h.compact("same-bridge", `,"runtimeConfig":{
		"portMappings":[{"hostPort":8080,"containerPort":80}],
		"bandwidth":{"ingressRate":800000,"ingressBurst":800000,"egressRate":800000,"egressBurst":800000}}`)
	c := h.newChain("pod", keys)
	if err := c.check(); err != nil {
		t.Error(err)
	}

	h.serve(c.netns, 80)
	if _, err := h.dial(h.netns, "192.0.2.1:8080"); err != nil {
		t.Error(err)
	}

	c.del()
	if left := h.traces(c.netns); left != "" {
		t.Error(left)
	}

	c = h.newChain("pod", keys)
	h.gc(keys)
	if left := h.traces(c.netns); left != "" {
		t.Error("after GC:", left)
	}
}

// Without mtu: upstream's bridge leaves it to the kernel.
func TestPodsSendNoLargerPacketsThanLeaveTheHost(t *testing.T) {
	h := newHost(t, "")
	h.uplink("192.0.2.1/24")
	h.ip(h.netns, "route add default via 192.0.2.2")
	for _, mtu := range []string{"1400", "1300", "1450"} {
		h.ip(h.netns, "link set up0 mtu "+mtu)
		c := h.newChain("pod"+mtu, h.compact("open", ""))
		for netns, name := range map[string]string{c.netns: "eth0", h.netns: "br0"} {
			if link := h.ip(netns, "link show "+name); !strings.Contains(link, " mtu "+mtu+" ") {
				t.Errorf("not %s: %s", mtu, link)
			}
		}
		if err := c.check(); err != nil {
			t.Error(err)
		}
		c.del()
	}

	h.ip(h.netns, "link delete br0")
	c := h.newChain("upstream", h.bridgePlugin(""))
	if link := h.ip(c.netns, "link show eth0"); !strings.Contains(link, " mtu 1500 ") {
		t.Error(link)
	}
}
