package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// world is a node in a network namespace on a LAN, with the API server on its loopback.
type world struct {
	t *testing.T
	// name is that of the Node.
	name string
	// dir has the files of the node, and node is the path of its network namespace.
	dir     string
	node    string
	api     *api
	server  *http.Server
	address string
	cmd     *exec.Cmd
	// policies has network policies enforced. The plugin's records are then in /var/lib/cni.
	policies bool
	// more are arguments of the program.
	more []string
}

const health = "127.0.0.1:10261"

// pluginScript stands in for the plugin. Its STATUS is good when the file "good" is there, and what it gets
// on standard input is in "asked".
const pluginScript = `#!/bin/sh
[ "$CNI_COMMAND" = STATUS ] || exit 9
cat > DIR/asked
[ -e DIR/good ] && exit 0
echo '{"code":50,"msg":"nftables is not usable","details":"operation not supported"}'
exit 1
`

// kubeconfig is that of a server without credentials.
const kubeconfig = `{"apiVersion":"v1","kind":"Config","current-context":"c",
	"clusters":[{"name":"c","cluster":{"server":"http://%s"}}],
	"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
	"users":[{"name":"u","user":{}}]}`

func newWorld(t *testing.T) *world {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "ip", "iproute2")
	w := newNode(t, newAPI(t))
	lan := testenv.Netns(t)
	w.ip("link set lo up")
	w.ip("link add eth0 mtu 1400 type veth peer name node netns " + lan)
	w.in(lan, "ip", "link", "set", "node", "up")
	w.ip("link set eth0 up")
	w.ip("addr add 10.99.0.1/24 dev eth0")
	w.ip("addr add fd99::1/64 dev eth0 nodad")
	w.serve("127.0.0.1:0")
	return w
}

// newNode returns a node without a network.
func newNode(t *testing.T, api *api) *world {
	t.Helper()
	w := &world{
		t:    t,
		name: "a",
		dir:  testenv.ShortDir(t),
		node: testenv.Netns(t),
		api:  api,
	}
	for _, d := range []string{"conf", "bin"} {
		if err := os.Mkdir(filepath.Join(w.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	w.write("bin/trivet-cni", 0o755, strings.ReplaceAll(pluginScript, "DIR", w.dir))
	return w
}

// serve serves the API as long as the test runs.
func (w *world) serve(address string) {
	w.t.Helper()
	w.listen(address)
	w.t.Cleanup(func() { _ = w.server.Close() })
}

// listen serves the API inside the node's namespace.
func (w *world) listen(address string) {
	w.t.Helper()
	var l net.Listener
	err := namespace.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}, w.node)
	if err != nil {
		w.t.Fatal(err)
	}

	w.address = l.Addr().String()
	w.server = &http.Server{Handler: w.api.Server, ReadHeaderTimeout: time.Minute}
	go func() { _ = w.server.Serve(l) }()
	w.write("kubeconfig", 0o600, fmt.Sprintf(kubeconfig, w.address))
}

func (w *world) write(name string, mode os.FileMode, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
}

// in runs a command in a network namespace.
func (w *world) in(netns string, command ...string) string {
	w.t.Helper()
	var out []byte
	err := namespace.Do(func() (err error) {
		out, err = exec.Command(command[0], command[1:]...).CombinedOutput()
		return err
	}, netns)
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

func (w *world) ip(args string) string {
	w.t.Helper()
	return w.in(w.node, append([]string{"ip"}, strings.Fields(args)...)...)
}

// sysctls are the values of settings in the node's namespace.
func (w *world) sysctls(names ...string) string {
	w.t.Helper()
	command := []string{"cat"}
	for _, name := range names {
		command = append(command, "/proc/sys/"+name)
	}
	return strings.Join(strings.Fields(w.in(w.node, command...)), " ")
}

// routes are those of trivet-netd, as ip shows them, in order.
func (w *world) routes() []string {
	w.t.Helper()
	var out []string
	for line := range strings.Lines(w.ip("-4 route show proto 117") + w.ip("-6 route show proto 117")) {
		out = append(out, strings.TrimSuffix(strings.Join(strings.Fields(line), " "), " pref medium"))
	}
	slices.Sort(out)
	return out
}

func (w *world) command(more ...string) *exec.Cmd {
	args := []string{
		"--kubeconfig=" + w.dir + "/kubeconfig",
		"--node-name=" + w.name,
		"--conf-dir=" + w.dir + "/conf",
		"--plugin=" + w.dir + "/bin/trivet-cni",
		"--cluster-cidr=10.244.0.0/16",
		fmt.Sprint("--network-policy=", w.policies),
	}

	cmd := exec.Command(os.Args[0], slices.Concat(args, w.more, more)...)
	cmd.Env = append(os.Environ(), "BE_TRIVET_NETD=1")
	cmd.Stderr = w.t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (w *world) start() {
	w.t.Helper()
	w.cmd = w.command()
	// The namespace is that of the thread which starts the process. (Pdeathsig comes when that thread ends,
	// so it must not be asked for.)
	w.cmd.SysProcAttr = nil
	if err := namespace.Do(w.cmd.Start, w.node); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.kill)
}

func (w *world) kill() { w.end(syscall.SIGKILL) }

func (w *world) end(signal syscall.Signal) {
	w.t.Helper()
	if w.cmd == nil {
		return
	}

	cmd := w.cmd
	w.cmd = nil
	if err := cmd.Process.Signal(signal); err != nil {
		w.t.Error(err)
	}
	if err := cmd.Wait(); err != nil && signal == syscall.SIGTERM {
		w.t.Error(err)
	}
}

// ask requests /healthz or /readyz of the daemon. The status is 0 when nobody answers.
func (w *world) ask(path string) (status int, body string) {
	dial := func(context.Context, string, string) (conn net.Conn, err error) {
		err = namespace.Do(func() (err error) {
			conn, err = net.Dial("tcp", health)
			return err
		}, w.node)

		return conn, err
	}

	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	resp, err := client.Get("http://" + health + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()

	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}

	return resp.StatusCode, string(data)
}

// await looks until it is so. 30 s are shorter than netd's recheck: what is so by then is so because of an
// event.
func (w *world) await(what string, so func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); !so(); <-tick.C {
		if time.Now().After(deadline) {
			_, body := w.ask("/readyz")
			w.t.Fatalf("not so after 30 s: %s\nroutes: %q\nreport: %s", what, w.routes(), body)
		}
	}
}

func (w *world) awaitRoutes(want ...string) {
	w.t.Helper()
	slices.Sort(want)
	w.await(fmt.Sprintf("routes %q", want), func() bool { return slices.Equal(w.routes(), want) })
}

func (w *world) awaitReport(status int, text string) {
	w.t.Helper()
	w.await(fmt.Sprintf("/readyz says %d %q", status, text), func() bool {
		s, body := w.ask("/readyz")
		return s == status && strings.Contains(body, text)
	})
}

// subnets of the configuration that is written; it must always be whole.
func (w *world) subnets() string {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, "conf/10-trivet.conflist"))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}

	var list struct {
		Plugins []struct {
			MTU  int
			IPAM struct{ Ranges [][]struct{ Subnet string } }
		}
	}
	if e := json.Unmarshal(data, &list); err != nil || e != nil || len(list.Plugins) != 1 {
		w.t.Fatalf("torn configuration: %v %v\n%s", err, e, data)
	}

	var out []string
	for _, r := range list.Plugins[0].IPAM.Ranges {
		out = append(out, r[0].Subnet)
	}

	return fmt.Sprintf("%s mtu %d", strings.Join(out, ","), list.Plugins[0].MTU)
}
