package plugin_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/conntrack"
	"github.com/trivet-node/trivet/cni/conntrack/conntracktest"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/policy/hold"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/testenv"
)

// killsVariable says how often each operation of each plugin is killed: 1000 is at every system call, which
// takes minutes.
const killsVariable = "TRIVET_KILLS"

// number is a variable of the environment, or what is meant without it.
func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is not a number of 1 and more", variable, text)
	}
	return n
}

// victims are the plugins that are killed, by the names of the cases, each preceded by those before it in the
// chain.
func (h *host) victims() map[string][]string {
	const ports = `"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80}]`
	const both = `"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80},
		{"hostPort":5353,"containerPort":53,"protocol":"udp"}]`
	const rates = `"ingressRate":800000,"ingressBurst":800000,"egressRate":800000,"egressBurst":800000`
	main := h.bridgePlugin("")
	compact := strings.Replace(h.bridgePlugin(""), `"bridge"`, `"trivet-cni"`, 1) + `,"ipMasq":true,
		"hostRouted":true,"ingressPolicy":"isolated",` + both + `,"bandwidth":{` + rates + `}}`

	all := map[string][]string{
		"trivet-cni":      {compact},
		"trivet-cni lazy": {compact + `,"lazyUnlink":true`},
		"loopback":        {`"type":"loopback"`},
		"static": {`"type":"static","ipam":{"type":"static",
			"addresses":[{"address":"10.88.0.9/24"}]}`},
		"host-local": {fmt.Sprintf(`"type":"host-local","ipam":{"type":"host-local","dataDir":%q,
			"ranges":[[{"subnet":"10.88.0.0/24"}],[{"subnet":"fd88::/64"}]]}`, h.dataDir)},
		"bandwidth": {main, `"type":"bandwidth",` + rates},
		"tuning": {main, fmt.Sprintf(`"type":"tuning","dataDir":%q,"mtu":1300,"promisc":true,
			"mac":"02:00:00:00:00:42"`, h.dataDir+"/tuning")},
		"sbr": {main, `"type":"sbr"`},
	}

	all["as trivet-netd writes it"] = []string{h.ofNetd() + "," + both + "}"}
	all["portmap with condition"] = []string{main, `"type":"portmap","backend":"nftables",
		"conditionsV4":["ip saddr != 192.0.2.77"],` + ports + `}`}

	all["addresses by another program"] = []string{`"type":"bridge","bridge":"br0","isGateway":true,
		"ipam":{"type":"elsewhere"}`}

	for _, backend := range []string{"nftables", "iptables"} {
		masquerade := `,"ipMasq":true,"ipMasqBackend":"` + backend + `"`
		own := `,"backend":"` + backend + `"`
		all["bridge "+backend] = []string{h.bridgePlugin(`,"macspoofchk":true` + masquerade)}
		all["ptp "+backend] = []string{h.ptp(masquerade)}
		all["portmap "+backend] = []string{main, `"type":"portmap",` + ports + `}` + own}
		all["firewall "+backend] = []string{main, `"type":"firewall","ingressPolicy":"isolated"` + own}
	}

	return all
}

// ofNetd is the one entry as trivet-netd configures it.
func (h *host) ofNetd() string {
	const format = `"type":"trivet-cni","bridge":"br0","isDefaultGateway":true,"ipMasq":true,
		"hairpinMode":true,"hostRouted":true,"lazyUnlink":true,"networkPolicy":true,"sourceGuard":true,
		"noMasq":["192.0.2.128/25"],"ipam":{"type":"host-local","dataDir":%q,"bootScoped":true,
		"ranges":[[{"subnet":"10.88.0.0/24"}],[{"subnet":"fd88::/64"}]]}`
	return fmt.Sprintf(format, h.dataDir)
}

// policed is where pods wait for their network policies. The namespace default has some.
func (h *host) policed() hold.Network {
	h.t.Helper()
	pool, err := ipam.Location{DataDir: h.dataDir, Network: "test"}.Create()
	if err != nil {
		h.t.Fatal(err)
	}
	network := hold.Network{Name: "test", Pool: pool}
	if err := network.Announce(map[string]bool{"default": true}); err != nil {
		h.t.Fatal(err)
	}
	return network
}

// elsewhere is an IPAM plugin with a file for each container.
const elsewhere = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
ADD) mkdir -p DIR && echo >DIR/$CNI_CONTAINERID
	echo '{"cniVersion":"1.1.0","ips":[{"address":"10.77.0.5/24","gateway":"10.77.0.1"}]}' ;;
DEL) rm -f DIR/$CNI_CONTAINERID ;;
GC) rm -f DIR/* ;;
esac
`

// addElsewhere makes that plugin. It lives on where who called it is killed.
func (h *host) addElsewhere() {
	h.t.Helper()
	h.binDir = h.t.TempDir()
	script := strings.ReplaceAll(elsewhere, "DIR", filepath.Join(h.dataDir, "elsewhere"))
	if err := os.WriteFile(filepath.Join(h.binDir, "elsewhere"), []byte(script), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// kill -9 at any system call of ADD and of DEL; what GC alone, or DEL and then GC, leaves.
func TestAPluginKilledAtAnyCallLeavesNothing(t *testing.T) {
	for name := range new(host).victims() {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "")
			h.policed()
			h.addElsewhere()
			plugins := h.victims()[name]
			for _, verb := range []string{"ADD", "DEL"} {
				h.sweep(verb, plugins)
			}
		})
	}
}

// sweep kills the last plugin in one operation, at each of its calls or some.
func (h *host) sweep(verb string, plugins []string) {
	h.t.Helper()
	calls := h.killed(verb, 0, plugins)
	step := max(1, calls/number(h.t, killsVariable, 2))
	h.t.Logf("%s: %d calls that change something", verb, calls)

	for at := 1 + rand.IntN(step); at <= calls && !h.t.Failed(); at += step {
		h.killed(verb, at, plugins)
	}
}

// killed adds a container by a chain of plugins, the last of which is killed at a call of ADD or of DEL, and
// takes apart what there is. It returns how many calls there were.
func (h *host) killed(verb string, number int, plugins []string) (calls int) {
	h.t.Helper()
	last := len(plugins) - 1
	c, calls := h.kill(verb, number, plugins)

	// A runtime that was killed as well does not know of the container: then there is GC alone.
	if number%2 == 0 {
		for _, p := range slices.Backward(plugins) {
			h.must("DEL", c.id, c.netns, c.config(p))
		}
	}

	h.age(filepath.Join(h.dataDir, "tuning"))
	h.gc(slices.Concat(plugins[last:], plugins[:last])...)
	// trivet-netd forgets the connections of pods that have ended.
	h.in(h.netns, h.policed().Clear)
	if left := h.traces(c.netns); left != "" {
		h.t.Errorf("%s killed at call %d of %d: %s", verb, number, calls, left)
	}

	return calls
}

// udpPort is a host port of some of the victims, to which a client of the host sends before DEL.
const udpPort = 5353

// kill adds a container by a chain of plugins, the last of which is killed at a call of ADD or of DEL.
func (h *host) kill(verb string, number int, plugins []string) (c *chain, calls int) {
	h.t.Helper()
	last := len(plugins) - 1
	before := plugins
	if verb == "ADD" {
		before = plugins[:last]
	}

	c = h.newChain(fmt.Sprintf("%s-%d%s", verb, number, mark()), before...)
	h.in(h.netns, func() error { return conntracktest.Send(udpPort) })
	h.asFirst(verb)
	h.in(h.netns, func() (err error) {
		command := h.command(verb, c.id, c.netns, "")
		command.Args = []string{typeOf("{" + plugins[last] + "}")}
		command.Env = append(command.Env, "CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod")
		stdin, err := input(h.t.TempDir(), c.config(plugins[last]))
		if err != nil {
			return err
		}
		defer stdin.Close()
		command.Stdin = stdin
		calls, err = killedAt(command, number)
		return err
	})
	return c, calls
}

// asFirst makes a call the first one since the boot, for which there is more to write.
func (h *host) asFirst(verb string) {
	h.t.Helper()
	err := os.Remove(filepath.Join(h.dataDir, "test", ".boot_id"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Fatal(err)
	}
	if verb == "ADD" {
		h.nft("flush ruleset")
	}
}

// A runtime repeats a DEL that failed, and not every runtime has GC.
func TestADelThatWasKilledIsFinishedByTheNext(t *testing.T) {
	h := newHost(t, "")
	plugins := h.victims()["trivet-cni"]
	_, calls := h.kill("DEL", 0, plugins)
	step := max(1, calls/number(t, killsVariable, 6))

	for at := 1 + rand.IntN(step); at <= calls && !t.Failed(); at += step {
		c, _ := h.kill("DEL", at, plugins)
		h.must("DEL", c.id, c.netns, c.config(plugins[0]))
		if left := h.traces(c.netns); left != "" {
			t.Errorf("DEL killed at call %d of %d, and repeated: %s", at, calls, left)
		}
	}
}

// age makes the files of a directory, of which there may be none, two minutes old: another network's ADD may
// be writing a younger one.
func (h *host) age(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, ".*"))
	then := time.Now().Add(-2 * time.Minute)
	for _, f := range files {
		if err := os.Chtimes(f, then, then); err != nil {
			h.t.Error(err)
		}
	}
}

// mark ends the names of this process' containers.
func mark() string { return fmt.Sprintf("-of-%d", os.Getpid()) }

// traces are what containers leave: remains, the container's interface, and files of any kind but those that
// belong to the network.
func (h *host) traces(netns string) string {
	h.t.Helper()
	var found []string
	for left := range strings.SplitSeq(h.remains(), ", ") {
		if left != "" && !strings.Contains(left, `comment "isolated br0"`) &&
			!strings.Contains(left, `comment "same-bridge br0"`) {
			found = append(found, left)
		}
	}

	found = append(found, h.inKernel()...)
	h.in(netns, func() error {
		pod, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer pod.Close()
		links, err := pod.Links()
		for _, l := range links {
			if l.Name != "lo" {
				found = append(found, "link "+l.Name+" of the container")
			}
		}
		return err
	})

	for _, dir := range []string{h.dataDir, "/run/cni/firewall"} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			switch name := filepath.Base(path); {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil || entry.IsDir():
				return err
			case name == "lock" || name == ".boot_id" || strings.HasPrefix(name, "last_reserved_ip"):
				return nil
			case strings.HasSuffix(path, "/namespaces/default"):
				return nil
			}

			// Those of the firewall are in one directory for all programs of the machine.
			content, _ := os.ReadFile(path)
			if dir == h.dataDir || strings.Contains(string(content), mark()) {
				found = append(found, "file "+path)
			}
			return nil
		})
		if err != nil {
			h.t.Error(err)
		}
	}

	return strings.Join(found, ", ")
}

// inKernel lists the addresses that are held, and the tracked connections that lead to containers by the UDP
// host port.
func (h *host) inKernel() (found []string) {
	h.t.Helper()
	h.in(h.netns, func() error {
		held, err := h.policed().Held()
		for _, a := range held {
			found = append(found, "held "+a.String())
		}
		if err != nil {
			return err
		}

		conn, err := netlink.Open(netlink.Netfilter)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()

		return conntrack.List(conn, unix.NFPROTO_IPV4, func(c conntrack.Connection) {
			if c.Port == udpPort && c.Answering != c.Address {
				found = append(found, "connection to "+c.Answering.String())
			}
		})
	})
	return found
}

// The fixture itself: a tracer that never kills would find nothing.
func TestAPluginIsKilledBeforeItsCall(t *testing.T) {
	testenv.Root(t)
	h := newHost(t, "")
	netns := testenv.Netns(t)
	run := func(number int) (calls int) {
		h.in(h.netns, func() (err error) {
			command := h.command("ADD", "pod", netns, h.config(""))
			stdin, err := input(t.TempDir(), h.config(""))
			if err != nil {
				return err
			}
			defer stdin.Close()
			command.Stdin = stdin
			calls, err = killedAt(command, number)
			return err
		})
		return calls
	}

	if calls := run(1); calls != 1 {
		t.Errorf("killed at call 1, it made %d", calls)
	}
	if left := h.traces(netns); left != "" {
		t.Errorf("before its first call it made %s", left)
	}
	if calls := run(0); calls < 10 {
		t.Errorf("%d calls", calls)
	}
	if left := h.traces(netns); !strings.Contains(left, "link eth0") {
		t.Errorf("not killed, it made %q", left)
	}
}
