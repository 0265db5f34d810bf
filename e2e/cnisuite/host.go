package cnisuite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/internal/namespace"
)

// host is a pretended host with one container, each in a network namespace of its own, and another machine
// beyond it, 192.0.2.2, which the host reaches as 192.0.2.1.
type host struct {
	dir               string
	netns, pod, other string
	list              *libcni.NetworkConfigList
	runtime           *libcni.RuntimeConf
}

// container is the ID of the container. Nothing that has it, or its addresses, may be left.
const container = "swapped-container"

// newHost makes a host for a network, in a directory that it empties.
func newHost(n network, dir string) (*host, error) {
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, err
	}

	h := &host{
		dir:   dir,
		netns: filepath.Join(dir, "host"),
		pod:   filepath.Join(dir, "pod"),
		other: filepath.Join(dir, "other"),
	}
	for _, path := range []string{h.netns, h.pod, h.other} {
		if err := namespace.Create(map[namespace.Kind]string{namespace.Net: path}, nil); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}

	var err error
	if h.list, err = libcni.ConfListFromBytes([]byte(n.list(filepath.Join(dir, "data")))); err == nil {
		err = namespace.Do(func() error { return h.setUp(n) }, h.netns)
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}

	h.runtime = &libcni.RuntimeConf{
		ContainerID: container,
		NetNS:       h.pod,
		IfName:      "eth0",
		CapabilityArgs: map[string]any{
			"portMappings": []map[string]any{
				{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
				{"hostPort": 8053, "containerPort": 53, "protocol": "udp"},
			},
		},
	}
	return h, nil
}

// setUp makes the interfaces of the host.
func (h *host) setUp(n network) error {
	script := `ip link set lo up
		ip link add up0 type veth peer name up1 netns ` + h.other + `
		ip addr add 192.0.2.1/24 dev up0
		ip link set up0 up
		sysctl -qw net.ipv4.ip_forward=1`
	if n.master {
		script += `
		ip link add eth1 type veth peer name eth2 netns ` + h.other + `
		ip link set eth1 up`
	}
	if err := run("sh", "-ec", script); err != nil {
		return err
	}

	const other = `ip link set lo up
		ip addr add 192.0.2.2/24 dev up1
		ip link set up1 up
		ip route add 10.85.0.0/24 via 192.0.2.1`
	if err := namespace.Do(func() error { return run("sh", "-ec", other) }, h.other); err != nil {
		return err
	}

	// As runtimes do, by loopback.
	return namespace.Do(func() error { return run("ip", "link", "set", "lo", "up") }, h.pod)
}

// close ends the namespaces.
func (h *host) close() (err error) {
	for _, path := range []string{h.netns, h.pod, h.other} {
		if _, failure := os.Stat(path); failure == nil {
			err = errors.Join(err, namespace.Unpin(path))
		}
	}
	return err
}

// plugins returns the CNI library with the plugins of a directory.
func (h *host) plugins(dir string) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{dir}, filepath.Join(h.dir, "cache"), nil)
}

// add adds the container and returns the result in the newest form, as JSON.
func (h *host) add(ctx context.Context, plugins *libcni.CNIConfig) (string, error) {
	result, err := plugins.AddNetworkList(ctx, h.list, h.runtime)
	if err != nil {
		return "", fmt.Errorf("ADD: %w", err)
	}

	newest, err := types100.NewResultFromResult(result)
	if err != nil {
		return "", err
	}
	data, err := json.MarshalIndent(newest, "", " ")
	return string(data), err
}

// check has the container checked; sbr has taken away what CHECK of a main plugin looks for.
func (h *host) check(ctx context.Context, n network, plugins *libcni.CNIConfig) error {
	if !n.hasCheck() {
		return nil
	}
	err := plugins.CheckNetworkList(ctx, h.list, h.runtime)
	if err == nil || !n.hasStolenRoutes {
		return err
	}

	// Ours names the route, and upstream's the gateway.
	text := err.Error()
	if strings.Contains(text, "route") || strings.Contains(text, "Failed to find Gateway") {
		return nil
	}
	return err
}

// paths are the ways of packets that are tried, from one of the namespaces.
var paths = []struct{ name, from, to string }{
	{"the host to the pod", "host", "10.85.0.POD:80"},
	{"the host to the pod by IPv6", "host", "[fd85::POD]:80"},
	{"the other machine to the pod", "other", "10.85.0.POD:80"},
	{"the pod to the other machine", "pod", "192.0.2.2:80"},
	{"the pod to the host", "pod", "192.0.2.1:81"},
	{"the other machine to the host port", "other", "192.0.2.1:8080"},
	{"the host to its host port", "host", "127.0.0.1:8080"},
	{"the pod to its own host port", "pod", "192.0.2.1:8080"},
}

// reach says what each way leads to: who is seen there, or nothing.
func (h *host) reach(n network) (lines []string, err error) {
	var servers []io.Closer
	defer func() {
		for _, s := range servers {
			_ = s.Close()
		}
	}()
	for path, port := range map[string]int{h.pod: 80, h.other: 80, h.netns: 81} {
		s, err := serve(path, port)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}

	number := "2"
	if strings.Contains(n.plugins, "fd85::9/64") {
		number = "9"
	}
	for _, p := range paths {
		from := map[string]string{"host": h.netns, "pod": h.pod, "other": h.other}[p.from]
		lines = append(lines, p.name+": "+dial(from, strings.Replace(p.to, "POD", number, 1)))
	}

	return lines, nil
}

// serve answers every connection in a namespace with the peer's address.
func serve(path string, port int) (l net.Listener, err error) {
	err = namespace.Do(func() error {
		l, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		return err
	}, path)
	if err != nil {
		return nil, err
	}

	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}

			peer, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, strings.TrimPrefix(peer, "::ffff:"))
			_ = c.Close()
		}
	}()

	return l, nil
}

// dialTimeout leaves time for a second try of the kernel, after one second: with several hosts at once a new
// bridge may take a while until it sends.
const dialTimeout = 2500 * time.Millisecond

func dial(from, to string) (seen string) {
	err := namespace.Do(func() error {
		c, err := net.DialTimeout("tcp", to, dialTimeout)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()

		_ = c.SetDeadline(time.Now().Add(dialTimeout))
		data, err := io.ReadAll(c)
		seen = "seen as " + string(data)
		return err
	}, from)
	if err != nil {
		return "nothing"
	}
	return seen
}
