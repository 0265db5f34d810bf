package cnisuite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/containernetworking/cni/libcni"

	"github.com/trivet-node/trivet/internal/namespace"
)

// Swap is one container that one program adds, and the other one checks and deletes.
type Swap struct {
	// Adds and Deletes are the directories of the two programs, each with the names of the plugins.
	Adds, Deletes string
	// Work is a directory for what the plugins write.
	Work string
}

// network is a configuration of the corpus; %s is the data directory.
type network struct{ name, plugins string }

const (
	hostLocal = `"ipam":{"type":"host-local","dataDir":"%s","ranges":[[{"subnet":"10.85.0.0/24"}],
		[{"subnet":"fd85::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}`
	bridge = `"type":"bridge","bridge":"br0","isGateway":true,` + hostLocal
	ptp    = `"type":"ptp",` + hostLocal
	ports  = `"type":"portmap","capabilities":{"portMappings":true}`
)

// corpus are the configurations that are swapped.
var corpus = []network{
	{"bridge", `{` + bridge + `}`},
	{"bridge, masquerade by nftables", `{` + bridge + `,"ipMasq":true,"ipMasqBackend":"nftables"}`},
	{"bridge, masquerade by iptables", `{` + bridge + `,"ipMasq":true,"ipMasqBackend":"iptables"}`},
	{"bridge, masquerade", `{` + bridge + `,"ipMasq":true}`},
	{"bridge, macspoofchk", `{` + bridge + `,"macspoofchk":true}`},
	{"ptp", `{` + ptp + `}`},
	{"ptp, masquerade by nftables", `{` + ptp + `,"ipMasq":true,"ipMasqBackend":"nftables"}`},
	{"ptp, masquerade by iptables", `{` + ptp + `,"ipMasq":true,"ipMasqBackend":"iptables"}`},
	{"bridge, portmap by nftables", `{` + bridge + `},{` + ports + `,"backend":"nftables"}`},
	{"bridge, portmap by iptables", `{` + bridge + `},{` + ports + `,"backend":"iptables"}`},
	{"ptp, portmap", `{` + ptp + `,"ipMasq":true},{` + ports + `}`},
	{"bridge, firewall by iptables", `{` + bridge + `},{"type":"firewall","backend":"iptables"}`},
	{"bridge, bandwidth", `{` + bridge + `},{"type":"bandwidth","ingressRate":8000000,"ingressBurst":8000000,
		"egressRate":8000000,"egressBurst":8000000}`},
	{"bridge, tuning", `{` + bridge + `},{"type":"tuning","mtu":1300,"mac":"02:00:00:00:00:42"}`},
	{"bridge, sbr", `{"type":"bridge","bridge":"br0","isGateway":true,` + hostLocal + `},{"type":"sbr"}`},
}

// container is the ID of the container. Nothing that has it, or its addresses, may be left.
const container = "swapped-container"

// Outcome is what became of one network.
type Outcome struct {
	Network string
	Err     error
	// Left are the lines of what is left.
	Left []string
}

// Run swaps each network of the corpus, on a host of its own.
func (s Swap) Run(ctx context.Context) (all []Outcome, err error) {
	for i, n := range corpus {
		dir := filepath.Join(s.Work, fmt.Sprint("swap-", i))
		err = errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
		if err != nil {
			return all, err
		}

		host := filepath.Join(dir, "host")
		pod := filepath.Join(dir, "pod")
		for _, path := range []string{host, pod} {
			if err := namespace.Create(map[namespace.Kind]string{namespace.Net: path}, nil); err != nil {
				return all, err
			}
		}

		o := Outcome{Network: n.name}
		o.Err = namespace.Do(func() (err error) {
			o.Left, err = s.swap(ctx, n, dir, pod)
			return err
		}, host)
		all = append(all, o)
		if err := errors.Join(namespace.Unpin(host), namespace.Unpin(pod)); err != nil {
			return all, err
		}
	}

	return all, nil
}

// swap adds, checks and deletes the container of a network on the host whose namespace the thread is in.
func (s Swap) swap(ctx context.Context, n network, dir, pod string) (left []string, err error) {
	if err := run("ip", "link", "set", "lo", "up"); err != nil {
		return nil, err
	}

	plugins := strings.ReplaceAll(n.plugins, "%s", filepath.Join(dir, "data"))
	const format = `{"cniVersion":"1.0.0","name":"swap","plugins":[%s]}`
	list, err := libcni.ConfListFromBytes(fmt.Appendf(nil, format, plugins))
	if err != nil {
		return nil, err
	}

	rt := &libcni.RuntimeConf{
		ContainerID: container,
		NetNS:       pod,
		IfName:      "eth0",
		CapabilityArgs: map[string]any{
			"portMappings": []map[string]any{
				{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
				{"hostPort": 8053, "containerPort": 53, "protocol": "udp"},
			},
		},
	}

	cache := filepath.Join(dir, "cache")
	adds := libcni.NewCNIConfigWithCacheDir([]string{s.Adds}, cache, nil)
	deletes := libcni.NewCNIConfigWithCacheDir([]string{s.Deletes}, cache, nil)
	if _, err := adds.AddNetworkList(ctx, list, rt); err != nil {
		return nil, fmt.Errorf("ADD: %w", err)
	}

	// sbr takes routes away that the main plugin looks for: upstream's CHECK fails, too.
	check := adds.CheckNetworkList(ctx, list, rt)
	if check == nil {
		check = deletes.CheckNetworkList(ctx, list, rt)
	} else {
		check = nil
	}

	if err := deletes.DelNetworkList(ctx, list, rt); err != nil {
		return nil, fmt.Errorf("DEL: %w", err)
	}
	if check != nil {
		check = fmt.Errorf("CHECK: %w", check)
	}

	// What the one that added keeps for itself outside of the directory goes by its own DEL.
	left = remains(dir)
	return left, errors.Join(check, adds.DelNetworkList(ctx, list, rt))
}

// ofPod matches what is a single container's: its ID, its addresses, names of chains with a hash, its
// interfaces.
var ofPod = regexp.MustCompile(container + `|10\.85\.0\.[2-9]|fd85::[2-9]|CNI-(DN-)?[0-9a-f]{20}|veth|bwp`)

// remains returns the lines that are a container's, of all that plugins write.
func remains(dir string) (left []string) {
	for _, command := range [][]string{
		{"ip", "-o", "link"},
		{"ip", "route"},
		{"nft", "list", "ruleset"},
		{"iptables-save"},
		{"ip6tables-save"},
		{"find", filepath.Join(dir, "data"), "/run/cni", "-type", "f", "-name", "*[0-9a-f]*"},
	} {
		// A program that is missing has nothing to show.
		out, _ := exec.Command(command[0], command[1:]...).Output()
		for line := range strings.Lines(string(out)) {
			if ofPod.MatchString(line) {
				left = append(left, command[0]+": "+strings.TrimSpace(line))
			}
		}
	}
	return left
}

func run(name string, arguments ...string) error {
	out, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, arguments, err, out)
	}
	return nil
}
