package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/cluster/controlplane"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/lan"
	"github.com/trivet-node/trivet/e2e/machine"
)

// kept are the directories of a node that survive its reboot.
var kept = []string{
	"/var/lib/kubelet", "/var/lib/containerd", "/var/lib/trivet", "/var/lib/cni", "/var/lib/local-path",
	"/var/log",
	"/etc/cni/net.d", "/opt/cni/bin", "/etc/containerd/certs.d", "/etc/kubernetes", "/etc/trivet",
}

// hosts is the content of a machine's /etc/hosts.
func hosts(name string, ip netip.Addr) string {
	return fmt.Sprintf("127.0.0.1 localhost\n::1 localhost ip6-localhost\n%s %s\n", ip, name)
}

// samePath shows directories of the host under their own paths, even where those are covered inside (/tmp,
// /run).
func samePath(dirs ...string) map[string]string {
	out := map[string]string{}
	for _, d := range dirs {
		if isThere(d) {
			out[d] = d
		}
	}
	return out
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// startNode boots the node's machine and starts what does not need the API server: its CRI server.
func (c *Cluster) startNode(ctx context.Context, i int, n Node) error {
	files := c.state().nodeFiles(n.Name)
	if err := writeRuntimeFiles(files, c.programs(), n.Seats); err != nil {
		return err
	}
	if err := files.write(seat.AgentFiles(n.Seats)); err != nil {
		return err
	}

	secrets := controlplane.NodeFiles(n.Name)
	if err := files.copySecrets(c.state().pki(), "/etc/kubernetes", secrets); err != nil {
		return err
	}

	m := c.Machine(n.Name)
	config := machine.Config{
		Name:   n.Name,
		Init:   n.MachineInit(),
		Group:  c.state().group(n.Name),
		Hosts:  hosts(n.Name, address.Node(i)),
		Keep:   kept,
		Expose: samePath(c.Bin, c.Programs),
		Disks:  n.disks(),
		Memory: n.Memory,
	}
	if err := exposeCrictl(&config, files, n, c.programs().Peer("crictl")); err != nil {
		return err
	}
	if err := m.Boot(ctx, config); err != nil {
		return err
	}
	if err := plug(c.state().controlPlane(), m, c.programs().Stack, address.Node(i)); err != nil {
		return err
	}

	return m.Start(c.programs().CRIServer(n.Seats))
}

// programsOfMachine is where a machine has programs of its own.
const programsOfMachine = "/usr/local/bin"

// exposeCrictl gives the machine of a node crictl, if it is built, with the node's CRI server as its
// endpoint: specs call it on nodes, and so do people.
func exposeCrictl(config *machine.Config, files nodeFiles, n Node, crictl string) error {
	if !isThere(crictl) {
		return nil
	}

	const settings = "/etc/crictl.yaml"
	endpoint := map[string]string{settings: "runtime-endpoint: " + n.CRIEndpoint() + "\n"}
	if err := files.write(endpoint); err != nil {
		return err
	}

	config.Cover = append(config.Cover, programsOfMachine)
	config.Expose[crictl] = filepath.Join(programsOfMachine, "crictl")
	config.Expose[files.path(settings)] = settings
	return nil
}

// plug connects a machine to the LAN, whose switch is on the control plane.
func plug(plane, m *machine.Machine, stack address.Stack, ip netip.Addr) error {
	addresses := onLAN(stack.Machine(ip))
	return lan.Plug(plane.Pid(), m.Pid(), m.Name, addresses, stack.Machine(address.ControlPlane))
}

// onLAN are the addresses of a machine with the lengths of the LAN's prefixes.
func onLAN(machine []netip.Addr) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range machine {
		all = append(all, address.OnLAN(a))
	}
	return all
}

// writeRuntimeFiles writes what a CRI server needs: its configuration, mirrors, and the CNI plugins.
func writeRuntimeFiles(files nodeFiles, programs seat.Programs, seats seat.Seats) error {
	if err := files.write(seat.RuntimeFiles(seats)); err != nil {
		return err
	}

	upstream, err := filepath.Glob(programs.Peer("cni/*"))
	if err != nil {
		return err
	}
	return files.link("/opt/cni/bin", programs.Plugins(seats, upstream))
}

// joiners are the daemons of a node that watch the API.
func joiners(p seat.Programs, i int, n Node) []machine.Daemon {
	daemons := []machine.Daemon{
		p.Agent(n.Seats, n.Name, i),
		p.KubeProxy(n.Name, "/etc/kubernetes/kube-proxy.conf"),
	}
	if n.CNI == "trivet" {
		daemons = append(daemons, p.Netd(n.Name, n.network()))
	}
	if n.CSI == "trivet" {
		daemons = append(daemons, p.CSI(n.Seats, n.Name, n.Volumes))
	}
	return daemons
}

// joinNode starts the daemons that watch the API, and waits until the node is Ready.
func (c *Cluster) joinNode(ctx context.Context, client kubernetes.Interface, i int, n Node) error {
	m := c.Machine(n.Name)
	server := c.programs().CRIServer(n.Seats)
	if err := awaitCRI(ctx, m, n.CRISocket(), server.Name); err != nil {
		return err
	}

	names := []string{server.Name}
	for _, d := range joiners(c.programs(), i, n) {
		if err := m.Start(d); err != nil {
			return err
		}

		names = append(names, d.Name)
	}

	var onCIDRs func([]string) error
	if n.CNI == "upstream" {
		onCIDRs = func(podCIDRs []string) error {
			path, conflist := seat.UpstreamNetwork(n.network(), podCIDRs)
			return c.state().nodeFiles(n.Name).write(map[string]string{path: conflist})
		}
	}

	if err := awaitNode(ctx, client, m, names, onCIDRs); err != nil {
		return err
	}

	c.say("node %s is Ready (%s, %s, %s, %s, %s, %s)",
		n.Name, n.Agent, n.CRI, n.CNI, n.CSI, n.OCI, n.CgroupDriver())
	return nil
}

// connectNodes adds the routes that no daemon on the machines adds: the control plane reaches all pods (for
// the API server's proxy), and nodes with the upstream plugins reach the pods of the others.
func connectNodes(ctx context.Context, client kubernetes.Interface, state stateDir, plan Plan) error {
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}

	cidrs := map[string][]string{}
	for _, n := range list.Items {
		cidrs[n.Name] = n.Spec.PodCIDRs
	}

	for i, target := range plan.Nodes {
		node := plan.Stack.Machine(address.Node(i))
		for _, text := range cidrs[target.Name] {
			cidr, err := netip.ParsePrefix(text)
			if err != nil {
				return fmt.Errorf("pod CIDR of node %s: %w", target.Name, err)
			}

			from := append([]string{controlplane.Name}, plan.routeless(target.Name)...)
			if err := routeFrom(state, from, cidr, address.Of(cidr, node)); err != nil {
				return err
			}
		}
	}

	return nil
}

// routeFrom makes machines reach a range of pods through a node.
func routeFrom(state stateDir, machines []string, pods netip.Prefix, node netip.Addr) error {
	for _, name := range machines {
		if err := lan.Route(state.machine(name).Pid(), pods, node); err != nil {
			return err
		}
	}
	return nil
}

// routeless are the nodes on which no daemon adds routes to the pods of target.
func (p Plan) routeless(target string) []string {
	var names []string
	for _, n := range p.Nodes {
		if n.CNI == "upstream" && n.Name != target {
			names = append(names, n.Name)
		}
	}
	return names
}
