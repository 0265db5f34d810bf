package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/lan"
	"github.com/trivet-node/trivet/e2e/machine"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// keep are the directories of a node that survive its reboot.
var keep = []string{"/var/lib/kubelet", "/var/lib/containerd", "/var/lib/trivet", "/var/lib/cni", "/var/log",
	"/etc/cni/net.d", "/opt/cni/bin", "/etc/containerd/certs.d", "/etc/kubernetes", "/etc/trivet"}

// groups is the cgroup above those of the machines.
func (c *Cluster) groups() string { return fmt.Sprintf("/trivet-%x", hash(c.Dir)) }

func (c *Cluster) group(name string) string { return c.groups() + "/" + name }

// hash keeps the cgroups of clusters in different directories apart (FNV-1a, 32 bits).
func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

func hosts(name, ip string) string {
	return fmt.Sprintf("127.0.0.1 localhost\n::1 localhost ip6-localhost\n%s %s\n", ip, name)
}

func nodeIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 1, byte(i + 1)}) }

// kept is a path inside the node as the host sees it.
func (c *Cluster) kept(node, path string) string { return c.path("machines", node, "keep", path) }

// startNode boots the node's machine and starts what does not need the API server: its CRI server.
func (c *Cluster) startNode(ctx context.Context, i int, n Node) error {
	m := c.Machine(n.Name)
	ip := nodeIP(i)
	if err := c.writeNodeFiles(n); err != nil {
		return err
	}

	config := machine.Config{
		Name:   n.Name,
		Group:  c.group(n.Name),
		Hosts:  hosts(n.Name, ip.String()),
		Keep:   keep,
		Expose: samePath(c.Bin, c.Programs),
	}
	if n.Init == machine.Systemd {
		config.Init = machine.Systemd
	}
	if err := m.Boot(ctx, config); err != nil {
		return err
	}
	if err := lan.Plug(c.controlPlane().Pid(), m.Pid(), n.Name, netip.PrefixFrom(ip, lanBits), gateway); err != nil {
		return err
	}

	return m.Start(c.criServer(n))
}

// samePath shows directories of the host under their own paths, even where those are covered inside (/tmp,
// /run).
func samePath(dirs ...string) map[string]string {
	out := map[string]string{}
	for _, d := range dirs {
		if _, err := os.Stat(d); err == nil {
			out[d] = d
		}
	}
	return out
}

// joinNode starts the daemons that watch the API, and waits until the node is Ready.
func (c *Cluster) joinNode(ctx context.Context, client kubernetes.Interface, i int, n Node) error {
	m := c.Machine(n.Name)
	if err := c.awaitSocket(ctx, m, n); err != nil {
		return err
	}

	daemons := []machine.Daemon{c.agent(i, n), c.kubeProxy(n.Name, "/etc/kubernetes/kube-proxy.conf")}
	if n.CNI == "trivet" {
		daemons = append(daemons, c.netd(n))
	}
	if _, err := os.Stat(c.program("trivet-csi")); err == nil {
		daemons = append(daemons, c.csi(n))
	}

	for _, d := range daemons {
		if err := m.Start(d); err != nil {
			return err
		}
	}

	var names []string
	for _, d := range append(daemons, c.criServer(n)) {
		names = append(names, d.Name)
	}

	boot := m.BootID()
	err := poll(ctx, 50*time.Millisecond, 2*time.Minute, func(ctx context.Context) (bool, error) {
		node, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil || node.Spec.PodCIDR == "" {
			return false, c.died(m, names...)
		}

		if n.CNI == "upstream" {
			if err := c.writeUpstreamNetwork(n.Name, node.Spec.PodCIDRs); err != nil {
				return false, err
			}
		}

		// After a reboot, the Node says Ready for as long as nobody has noticed: only the new boot ID tells
		// that its agent is back.
		return ready(node) && node.Status.NodeInfo.BootID == boot, c.died(m, names...)
	})
	if err != nil {
		return fmt.Errorf("wait for it to be Ready: %w", err)
	}

	c.say("node %s is Ready (%s, %s, %s, %s, %s)", n.Name, n.Agent, n.CRI, n.CNI, n.OCI, n.cgroupDriver())
	return nil
}

// awaitSocket waits until the CRI server takes connections: a kubelet that comes earlier gives up at once.
func (c *Cluster) awaitSocket(ctx context.Context, m *machine.Machine, n Node) error {
	socket := fmt.Sprintf("/proc/%d/root%s", m.Pid(), strings.TrimPrefix(criEndpoint(n), "unix://"))
	err := poll(ctx, 10*time.Millisecond, time.Minute, func(context.Context) (bool, error) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return false, c.died(m, c.criServer(n).Name)
		}

		return true, conn.Close()
	})
	if err != nil {
		return fmt.Errorf("wait for its CRI server: %w", err)
	}

	return nil
}

func ready(n *corev1.Node) bool {
	for _, cond := range n.Status.Conditions {
		if cond.Type == corev1.NodeReady {
			return cond.Status == corev1.ConditionTrue
		}
	}
	return false
}

// connectNodes lays the routes that nobody on the machines lays: the control plane reaches all pods (for the
// API server's proxy), and nodes with the upstream plugins reach the pods of the others.
func (c *Cluster) connectNodes(ctx context.Context, client kubernetes.Interface, plan Plan) error {
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}

	cidrs := map[string]string{}
	for _, n := range list.Items {
		cidrs[n.Name] = n.Spec.PodCIDR
	}

	for i, target := range plan.Nodes {
		cidr, err := netip.ParsePrefix(cidrs[target.Name])
		if err != nil {
			return fmt.Errorf("pod CIDR of node %s: %w", target.Name, err)
		}
		if err := lan.Route(c.controlPlane().Pid(), cidr, nodeIP(i)); err != nil {
			return err
		}

		for _, from := range plan.Nodes {
			if from.CNI != "upstream" || from.Name == target.Name {
				continue
			}
			if err := lan.Route(c.Machine(from.Name).Pid(), cidr, nodeIP(i)); err != nil {
				return err
			}
		}
	}

	return nil
}

func (c *Cluster) writeNodeFiles(n Node) error {
	if err := c.writeRuntimeFiles(n); err != nil {
		return err
	}
	if err := c.writeKept(n, "/etc/trivet/kubelet.json", kubeletConfiguration(n)); err != nil {
		return err
	}
	return c.copyIdentities(n)
}

// mirrored are the registries that the one on the LAN stands for.
var mirrored = map[string]string{
	"docker.io":       "https://registry-1.docker.io",
	"registry.k8s.io": "https://registry.k8s.io",
	"k8s.gcr.io":      "https://k8s.gcr.io",
	"gcr.io":          "https://gcr.io",
}

// writeRuntimeFiles writes what a CRI server needs: mirrors, its configuration, and the CNI plugins.
func (c *Cluster) writeRuntimeFiles(n Node) error {
	for name, server := range mirrored {
		if err := c.writeKept(n, "/etc/containerd/certs.d/"+name+"/hosts.toml", mirror(server)); err != nil {
			return err
		}
	}
	if err := c.writeKept(n, "/etc/trivet/containerd.toml", containerdConfig(n)); err != nil {
		return err
	}
	return c.installPlugins(n)
}

// writeKept writes a file of the node that survives its reboot.
func (c *Cluster) writeKept(n Node, path, text string) error {
	file := c.kept(n.Name, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// copyIdentities gives the node its own identity and those of the daemons on it, at kubeadm's paths where it
// has one. Other nodes' keys stay out of its sight.
func (c *Cluster) copyIdentities(n Node) error {
	files := map[string]string{
		"ca.crt":                       "pki/ca.crt",
		n.Name + ".kubeconfig":         "kubelet.conf",
		"bootstrap.kubeconfig":         "bootstrap-kubelet.conf",
		"proxy.kubeconfig":             "kube-proxy.conf",
		"trivet-netd.kubeconfig":       "trivet-netd.conf",
		csiIdentity(n) + ".kubeconfig": "trivet-csi.conf",
	}

	dir := c.kept(n.Name, "/etc/kubernetes")
	if err := os.MkdirAll(filepath.Join(dir, "pki"), 0o755); err != nil {
		return err
	}

	for from, to := range files {
		data, err := os.ReadFile(c.pki().Path(from))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o600); err != nil {
			return err
		}
	}

	return nil
}

func mirror(server string) string {
	return fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n",
		server, "http://"+registry)
}

// installPlugins fills /opt/cni/bin. The node sees the same files: they are linked or copied, never executed
// on the host.
func (c *Cluster) installPlugins(n Node) error {
	dir := c.kept(n.Name, "/opt/cni/bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}

	// containerd calls a plugin by the name loopback for every pod, whatever the configuration says.
	plugins := map[string]string{"trivet-cni": c.program("trivet-cni"), "loopback": c.program("trivet-cni")}
	if n.CNI == "upstream" {
		upstream, err := filepath.Glob(filepath.Join(c.Bin, "cni", "*"))
		if err != nil {
			return err
		}

		clear(plugins)
		for _, program := range upstream {
			plugins[filepath.Base(program)] = program
		}
	}

	for name, program := range plugins {
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}

	return nil
}

func (c *Cluster) criServer(n Node) machine.Daemon {
	if n.CRI == "trivet" {
		return c.daemon("trivet-cri", c.program("trivet-cri"), "--oci-runtime="+n.OCI,
			"--cgroup-driver="+n.cgroupDriver())
	}
	d := c.daemon("containerd", c.reference("containerd"), "--config=/etc/trivet/containerd.toml")
	d.Env = []string{"PATH=" + c.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return d
}

func criEndpoint(n Node) string {
	if n.CRI == "trivet" {
		return "unix:///run/trivet/cri.sock"
	}
	return "unix:///run/containerd/containerd.sock"
}

func (c *Cluster) agent(i int, n Node) machine.Daemon {
	name, program := "kubelet", c.reference("kubelet")
	if n.Agent == "trivet" {
		name, program = "trivet-node", c.program("trivet-node")
	}

	return c.daemon(
		name,
		program,
		"--kubeconfig=/etc/kubernetes/kubelet.conf",
		"--config=/etc/trivet/kubelet.json",
		"--hostname-override="+n.Name,
		"--node-ip="+nodeIP(i).String(),
	)
}

func (c *Cluster) netd(n Node) machine.Daemon {
	return c.daemon(
		"trivet-netd",
		c.program("trivet-netd"),
		"--kubeconfig=/etc/kubernetes/trivet-netd.conf",
		"--node-name="+n.Name,
		"--cluster-cidr="+podCIDR,
	)
}

// poolSize is the sparse file that a node keeps its volumes in: nodes share the disk of one machine, so none
// may take it all.
const poolSize = "5Gi"

func (c *Cluster) csi(n Node) machine.Daemon {
	return c.daemon(
		"trivet-csi",
		c.program("trivet-csi"),
		"--kubeconfig=/etc/kubernetes/trivet-csi.conf",
		"--node-name="+n.Name,
		"--pool-size="+poolSize,
	)
}

// kubeletConfiguration is v1beta1, for kubelet and trivet-node alike.
func kubeletConfiguration(n Node) string {
	data, err := json.MarshalIndent(map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{"anonymous": map[string]any{
			"enabled": false,
		}, "webhook": map[string]any{"enabled": true},
			"x509": map[string]any{"clientCAFile": "/etc/kubernetes/pki/ca.crt"}},
		"authorization":            map[string]any{"mode": "Webhook"},
		"clusterDNS":               []string{dnsService},
		"clusterDomain":            "cluster.local",
		"cgroupDriver":             n.cgroupDriver(),
		"containerRuntimeEndpoint": criEndpoint(n),
		"staticPodPath":            "/etc/kubernetes/manifests",
		"failCgroupV1":             false,
		"failSwapOn":               false,
		"podPidsLimit":             4096,
		"evictionHard": map[string]string{
			"memory.available":  "50Mi",
			"nodefs.available":  "1%",
			"imagefs.available": "1%",
			"nodefs.inodesFree": "1%",
		},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
	}, "", "  ")
	if err != nil {
		// only for plain data
		panic(err)
	}

	return string(data)
}

// cgroupDriver goes with the init: systemd wants to be asked for groups.
func (n Node) cgroupDriver() string {
	if n.Init == machine.Systemd {
		return "systemd"
	}
	return "cgroupfs"
}

func containerdConfig(n Node) string {
	return fmt.Sprintf(`version = 3

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '%s'
SystemdCgroup = %t

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'registry.k8s.io/pause:3.10.2'

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '/etc/containerd/certs.d'
`, n.OCI, n.Init == machine.Systemd)
}

// writeUpstreamNetwork does by hand what a network add-on of the upstream plugins does: a conflist from the
// node's pod CIDRs.
func (c *Cluster) writeUpstreamNetwork(node string, podCIDRs []string) error {
	var ranges [][]map[string]string
	for _, cidr := range podCIDRs {
		ranges = append(ranges, []map[string]string{{"subnet": cidr}})
	}

	data, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0", "name": "pods",
		"plugins": []any{
			map[string]any{
				"type":        "bridge",
				"bridge":      "cni0",
				"isGateway":   true,
				"ipMasq":      false,
				"hairpinMode": true,
				"ipam": map[string]any{
					"type":   "host-local",
					"ranges": ranges,
					"routes": []any{map[string]string{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{
				"type":         "portmap",
				"backend":      "nftables",
				"capabilities": map[string]bool{"portMappings": true},
			},
		},
	}, "", "  ")
	if err != nil {
		return err
	}

	file := c.kept(node, "/etc/cni/net.d/10-pods.conflist")
	if old, err := os.ReadFile(file); err == nil && string(old) == string(data) {
		return nil
	}

	return os.WriteFile(file, data, 0o644)
}
