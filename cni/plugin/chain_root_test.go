package plugin_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/internal/testenv"
)

// chain is a list of plugins, as the CNI library calls them for one container.
type chain struct {
	*host
	id      string
	netns   string
	plugins []string
	// result is that of the last plugin.
	result string
}

// newChain adds a container by a list of plugins, each the keys of its configuration.
func (h *host) newChain(id string, plugins ...string) *chain {
	h.t.Helper()
	c := &chain{
		host:    h,
		id:      id,
		netns:   testenv.Netns(h.t),
		plugins: plugins,
	}
	for _, p := range plugins {
		c.result = h.must("ADD", id, c.netns, c.config(p))
	}
	return c
}

// config is the configuration of a plugin with the result of those before it.
func (c *chain) config(keys string) string {
	previous := ""
	if c.result != "" {
		previous = `,"prevResult":` + c.result
	}
	return `{"cniVersion":"1.1.0","name":"test",` + keys + previous + `}`
}

func (c *chain) check() error {
	for _, p := range c.plugins {
		if _, err := c.call("CHECK", c.id, c.netns, c.config(p)); err != nil {
			return err
		}
	}
	return nil
}

// del deletes the container twice, the second time without namespace and prevResult.
func (c *chain) del() {
	c.t.Helper()
	for _, p := range slices.Backward(c.plugins) {
		c.must("DEL", c.id, c.netns, c.config(p))
	}

	c.result = ""
	for _, p := range slices.Backward(c.plugins) {
		c.must("DEL", c.id, "", c.config(p))
	}
}

// gc tells the plugins that the runtime has no containers.
func (h *host) gc(plugins ...string) {
	h.t.Helper()
	for _, p := range plugins {
		h.must("GC", "", "", `{"cniVersion":"1.1.0","name":"test",`+p+`,"cni.dev/valid-attachments":[]}`)
	}
}

// address is the container's of a family.
func (c *chain) address(is6 bool) netip.Addr {
	c.t.Helper()
	result, err := types100.NewResult([]byte(c.result))
	if err != nil {
		c.t.Fatal(err)
	}

	for _, ip := range result.(*types100.Result).IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		if a = a.Unmap(); a.Is6() == is6 {
			return a
		}
	}

	c.t.Fatalf("no address in %s", c.result)
	return netip.Addr{}
}

// The main plugins that the chained ones come after.
func (h *host) ptp(more string) string {
	const format = `"type":"ptp","ipam":{"type":"host-local","dataDir":%q,
		"ranges":[[{"subnet":"10.88.0.0/24"}],[{"subnet":"fd88::/64"}]],
		"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}%s`
	return fmt.Sprintf(format, h.dataDir, more)
}

func (h *host) bridgePlugin(more string) string {
	const format = `"type":"bridge","bridge":"br0","isDefaultGateway":true,"ipam":{"type":"host-local",
		"dataDir":%q,"ranges":[[{"subnet":"10.88.0.0/24"}],[{"subnet":"fd88::/64"}]]}%s`
	return fmt.Sprintf(format, h.dataDir, more)
}

// remains is leftovers without the uplink and what the chains of all containers share in iptables.
func (h *host) remains() string {
	var own []string
	for found := range strings.SplitSeq(h.leftovers(), ", ") {
		if found == "" || found == "link up0" || strings.Contains(found, "CNI portfwd") ||
			strings.Contains(found, "CNI firewall") {
			continue
		}
		own = append(own, found)
	}
	return strings.Join(own, ", ")
}

// program runs a program in a namespace and returns what it prints.
func (h *host) program(netns, name, debianPackage, args string) string {
	h.t.Helper()
	path := testenv.Program(h.t, name, debianPackage)
	var out []byte
	h.in(netns, func() (err error) {
		out, err = exec.Command(path, strings.Fields(args)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s %s: %w: %s", name, args, err, out)
		}
		return err
	})
	return string(out)
}

func TestAPointToPointPodReachesHostAndBeyond(t *testing.T) {
	h := newHost(t, "")
	beyond := h.uplink("192.0.2.1/24")
	h.ip(beyond, "addr add 192.0.2.2/24 dev up1")
	h.serve(beyond, 80)
	for _, masquerade := range []string{
		`,"ipMasq":true`,
		`,"ipMasq":true,"ipMasqBackend":"nftables"`,
		`,"ipMasq":true,"ipMasqBackend":"iptables"`,
	} {
		c := h.newChain("pod", h.ptp(masquerade))
		if err := c.check(); err != nil {
			t.Error(err)
		}

		h.serve(c.netns, 80)
		for _, is6 := range []bool{false, true} {
			if _, err := h.dial(h.netns, netip.AddrPortFrom(c.address(is6), 80).String()); err != nil {
				t.Error(err)
			}
		}
		if seen, err := h.dial(c.netns, "192.0.2.2:80"); err != nil || seen != "192.0.2.1" {
			t.Errorf("%s: seen as %q, %v", masquerade, seen, err)
		}

		other := h.newChain("other", h.ptp(""))
		if _, err := h.dial(other.netns, netip.AddrPortFrom(c.address(false), 80).String()); err != nil {
			t.Error("pod to pod:", err)
		}

		other.del()
		c.del()
		if left := h.remains(); left != "" {
			t.Errorf("%s: %s", masquerade, left)
		}
	}
}

// backends are those of portmap, with a condition in the language of each.
var backends = map[string]string{
	"nftables":                `"backend":"nftables"`,
	"nftables with condition": `"backend":"nftables","conditionsV4":["ip saddr != 192.0.2.77"]`,
	"nftables with a set": `"backend":"nftables","conditionsV4":["ip saddr {",
		"127.0.0.0/8, 10.88.0.0/16,","192.0.2.0-192.0.2.76 }"]`,
	"iptables":                `"backend":"iptables"`,
	"iptables with condition": `"backend":"iptables","conditionsV4":["!","-s","192.0.2.77"]`,
	"all masqueraded":         `"backend":"nftables","masqAll":true`,
}

func TestPortmapPublishesPortsByBothBackends(t *testing.T) {
	for name, keys := range backends {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "")
			beyond := h.uplink("192.0.2.1/24")
			h.ip(beyond, "addr add 192.0.2.2/24 dev up1")
			portmap := `"type":"portmap",` + keys + `,"runtimeConfig":{"portMappings":[
				{"hostPort":8080,"containerPort":80},
				{"hostPort":8081,"containerPort":80,"hostIP":"192.0.2.1"},
				{"hostPort":8082,"containerPort":80,"hostIP":"192.0.2.9"}]}`
			c := h.newChain("pod", h.ptp(""), portmap)
			if err := c.check(); err != nil {
				t.Error(err)
			}

			h.serve(c.netns, 80)
			for _, to := range []struct{ from, address string }{
				{beyond, "192.0.2.1:8080"},
				{beyond, "192.0.2.1:8081"},
				{h.netns, "192.0.2.1:8080"},
				{h.netns, "127.0.0.1:8080"},
				{c.netns, "192.0.2.1:8080"},
			} {
				if _, err := h.dial(to.from, to.address); err != nil {
					t.Errorf("%s: %v", to.address, err)
				}
			}
			if reaches(beyond, "192.0.2.1:8082") {
				t.Error("the host port of another address answers")
			}

			c.del()
			if left := h.remains(); left != "" {
				t.Error(left)
			}
			if c.check() == nil {
				t.Error("CHECK finds what is not there")
			}
		})
	}
}

// The second time may be for another interface of the container.
func TestPortmapLeavesThePortsThatAContainerHas(t *testing.T) {
	h := newHost(t, "")
	h.uplink("192.0.2.1/24")
	more := func(port int, keys string) string {
		const format = `"type":"portmap","backend":"nftables"%s,"runtimeConfig":{"portMappings":[
			{"hostPort":%d,"containerPort":80}]}`
		return fmt.Sprintf(format, keys, port)
	}

	c := h.newChain("pod", h.ptp(""), more(8080, ""))
	h.serve(c.netns, 80)
	h.must("ADD", "pod", c.netns, c.config(more(8081, "")))

	// A call that fails takes back only its own rules.
	refused := more(8082, `,"conditionsV4":["no such match"]`)
	if _, err := h.call("ADD", "pod", c.netns, c.config(refused)); err == nil {
		t.Error("nft takes any text")
	}

	for _, address := range []string{"192.0.2.1:8080", "192.0.2.1:8081"} {
		if _, err := h.dial(h.netns, address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}

	c.del()
	if left := h.remains(); left != "" {
		t.Error(left)
	}
}

func TestGCOfTheSetLeavesNothing(t *testing.T) {
	limits := `"type":"bandwidth","ingressRate":80000,"ingressBurst":80000,
		"egressRate":80000,"egressBurst":80000`
	tune := fmt.Sprintf(`"type":"tuning","dataDir":%q,"mtu":1300`, t.TempDir())
	ports := `"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80}]}`
	for name, backend := range map[string]string{
		"nftables": `"ipMasqBackend":"nftables","backend":"nftables"`,
		"iptables": `"ipMasqBackend":"iptables","backend":"iptables"`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "")
			for _, main := range []string{
				h.ptp(`,"ipMasq":true,` + backend),
				h.bridgePlugin(`,"ipMasq":true,"macspoofchk":true,` + backend),
			} {
				plugins := []string{
					main,
					`"type":"portmap",` + backend + `,` + ports,
					`"type":"firewall",` + backend,
					limits,
					tune,
				}

				c := h.newChain("pod", plugins...)
				if err := c.check(); err != nil {
					t.Error(err)
				}

				slices.Reverse(plugins)
				h.gc(plugins...)
				if left := h.remains(); left != "" {
					t.Error(left)
				}
			}
		})
	}
}
