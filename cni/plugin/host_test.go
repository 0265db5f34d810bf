package plugin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/nft/nfttest"
	"github.com/trivet-node/trivet/cni/plugin"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// The test binary is the plugin when it is called as one: a runtime's call is a process.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		os.Exit(plugin.Main("test"))
	}
	if os.Getenv(installVariable) != "" {
		os.Exit(installAs(os.Args))
	}
	os.Exit(m.Run())
}

// host is a pretended host: a network namespace, and the network's directory.
type host struct {
	t       *testing.T
	netns   string
	dataDir string
	// extra are more keys of the configuration.
	extra string
	// binDir has programs of others, for plugins that call them.
	binDir string
}

func newHost(t *testing.T, extra string) *host {
	testenv.Root(t)
	h := &host{
		t:       t,
		netns:   testenv.Netns(t),
		dataDir: t.TempDir(),
		extra:   extra,
		binDir:  "/nowhere",
	}

	h.in(h.netns, func() error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}

		if err := errors.Join(c.Must(rtnl.SetUp(1)), c.Close()); err != nil {
			return err
		}

		// Package net finds out once, where it is used first, whether there is IPv6.
		l, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			return err
		}
		return l.Close()
	})

	return h
}

func (h *host) in(netns string, f func() error) {
	h.t.Helper()
	if err := namespace.Do(f, netns); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) config(more string) string {
	const format = `{"cniVersion":"1.1.0","name":"test","type":"trivet-cni","bridge":"br0",
		"isDefaultGateway":true,"hairpinMode":true,"ipMasq":true,"ipam":{"type":"host-local","dataDir":%q,
		"ranges":[[{"subnet":"10.88.0.0/24"}],[{"subnet":"fd88::/64"}]]}%s%s}`
	return fmt.Sprintf(format, h.dataDir, h.extra, more)
}

// ports are capability arguments with host ports.
func ports(mappings string) string { return `,"runtimeConfig":{"portMappings":[` + mappings + `]}` }

// command prepares a call in the host's namespace.
func (h *host) command(verb, id, netns, config string) *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Args = []string{typeOf(config)}
	c.Env = append(
		os.Environ(),
		"CNI_COMMAND="+verb,
		"CNI_CONTAINERID="+id,
		"CNI_NETNS="+netns,
		"CNI_IFNAME=eth0",
		"CNI_PATH="+h.binDir,
	)
	c.Stdin = strings.NewReader(config)
	return c
}

// typeOf returns the type of a configuration: a runtime finds the program by it.
func typeOf(config string) string {
	var head struct{ Type string }
	_ = json.Unmarshal([]byte(config), &head)
	return head.Type
}

// call runs the plugin and returns its output; an error is the plugin's own text.
func (h *host) call(verb, id, netns, config string) (string, error) {
	return h.run(h.command(verb, id, netns, config))
}

func (h *host) run(c *exec.Cmd) (string, error) {
	var out []byte
	err := namespace.Do(func() error {
		var err error
		out, err = c.Output()
		return err
	}, h.netns)
	if err != nil {
		err = fmt.Errorf("%v: %w: %s", c.Args, err, out)
	}
	return string(out), err
}

// callAs runs the plugin by another name, for another interface.
func (h *host) callAs(name, verb, id, netns, ifname, config string) (string, error) {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), name)
	c := h.command(verb, id, netns, config)
	c.Args = []string{path}
	c.Env = append(c.Env, "CNI_IFNAME="+ifname)
	return h.run(c)
}

// nft runs nft(8) in the host's namespace.
func (h *host) nft(args string) {
	h.t.Helper()
	program := testenv.Program(h.t, "nft", "nftables")
	h.in(h.netns, func() error {
		out, err := exec.Command(program, strings.Fields(args)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("nft %s: %w: %s", args, err, out)
		}
		return err
	})
}

// change replaces a text in a rule of nftables, where it is, in the host's namespace.
func (h *host) change(chain, from, to string) {
	h.t.Helper()
	nfttest.Change(h.t, h.netns, chain, from, to)
}

// ip runs ip(8) in a namespace.
func (h *host) ip(netns, args string) string {
	h.t.Helper()
	program := testenv.Program(h.t, "ip", "iproute2")
	var out []byte
	h.in(netns, func() (err error) {
		out, err = exec.Command(program, strings.Fields(args)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return err
	})
	return string(out)
}

// uplink connects the host, with an address, to a namespace beyond it by the veth up0, up1.
func (h *host) uplink(address string) (beyond string) {
	h.t.Helper()
	beyond = testenv.Netns(h.t)
	h.ip(h.netns, "link add up0 type veth peer name up1 netns "+beyond)
	h.ip(h.netns, "addr add dev up0 "+address)
	h.ip(h.netns, "link set up0 up")
	h.ip(beyond, "link set up1 up")
	return beyond
}

func (h *host) must(verb, id, netns, config string) string {
	h.t.Helper()
	out, err := h.call(verb, id, netns, config)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// pod adds a pod and returns its namespace and addresses (IPv4, IPv6).
func (h *host) pod(id, more string) (netns string, v4, v6 netip.Addr) {
	h.t.Helper()
	netns = testenv.Netns(h.t)
	out := h.must("ADD", id, netns, h.config(more))
	result, err := types100.NewResult([]byte(out))
	if err != nil {
		h.t.Fatal(err)
	}

	ips := result.(*types100.Result).IPs
	v4, _ = netip.AddrFromSlice(ips[0].Address.IP.To4())
	v6, _ = netip.AddrFromSlice(ips[1].Address.IP)
	h.must("CHECK", id, netns, h.config(more+`,"prevResult":`+out))
	return netns, v4, v6
}

// serve answers every connection in a namespace with the peer's address.
func (h *host) serve(netns string, port int) {
	h.t.Helper()
	h.in(netns, func() error {
		l, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			return err
		}

		h.t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}

				host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				_, _ = io.WriteString(c, strings.TrimPrefix(host, "::ffff:"))
				_ = c.Close()
			}
		}()

		return nil
	})
}

// dial connects from a namespace and returns which address the server saw.
func (h *host) dial(netns, to string) (seen string, err error) {
	return dialWithin(netns, to, time.Minute)
}

// dropped is how long what is dropped is waited for. On a busy machine, what is not may take longer.
const dropped = 3 * time.Second

// reaches reports whether a namespace reaches what it should not.
func reaches(netns, to string) bool {
	_, err := dialWithin(netns, to, dropped)
	return err == nil
}

func dialWithin(netns, to string, limit time.Duration) (seen string, err error) {
	err = namespace.Do(func() error {
		c, err := net.DialTimeout("tcp", to, limit)
		if err != nil {
			return err
		}
		defer c.Close()

		_ = c.SetDeadline(time.Now().Add(limit))
		data, err := io.ReadAll(c)
		seen = string(data)
		return err
	}, netns)

	return seen, err
}

// leftovers are links beside lo and the bridge, reservations, and elements of nftables.
func (h *host) leftovers() string {
	h.t.Helper()
	var found []string
	h.in(h.netns, func() error {
		c, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer c.Close()

		links, err := c.Links()
		for _, l := range links {
			if l.Name != "lo" && l.Name != "br0" {
				found = append(found, "link "+l.Name)
			}
		}

		rules, listErr := exec.Command(testenv.Program(h.t, "nft", "nftables"), "list", "ruleset").Output()
		for line := range strings.Lines(string(rules)) {
			if strings.Contains(line, "comment") {
				found = append(found, strings.TrimSpace(line))
			}
		}

		return errors.Join(err, listErr)
	})

	for _, pattern := range []string{"[0-9]*.*", "fd*", ".by-id/*", ".ports/*"} {
		files, _ := filepath.Glob(filepath.Join(h.dataDir, "test", pattern))
		for _, f := range files {
			found = append(found, "file "+filepath.Base(f))
		}
	}

	return strings.Join(found, ", ")
}
