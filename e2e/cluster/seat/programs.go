package seat

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/machine"
)

// Programs are the directories where the programs are.
type Programs struct {
	Ours      string // trivet's
	Reference string // the control plane and what trivet is compared with

	// Stack is that of the cluster.
	Stack address.Stack

	// Zones is in how many zones the nodes are; 0: in none.
	Zones int
}

// Own is the path of one of trivet's programs.
func (p Programs) Own(name string) string { return filepath.Join(p.Ours, name) }

// Peer is the path of a reference program.
func (p Programs) Peer(name string) string { return filepath.Join(p.Reference, name) }

// CRIServer is the node's CRI server.
func (p Programs) CRIServer(s Seats) machine.Daemon {
	if s.CRI == "trivet" {
		return machine.Daemon{
			Name: "trivet-cri",
			Argv: traced(s,
				p.Own("trivet-cri"),
				"--oci-runtime="+s.OCI,
				"--cgroup-driver="+s.CgroupDriver(),
				metricsOf("trivet-cri"),
			),
		}
	}

	// It looks for its shim in PATH.
	env := []string{"PATH=" + p.Reference + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if s.Traces != "" {
		env = append(env,
			"OTEL_EXPORTER_OTLP_ENDPOINT=http://"+s.Traces,
			"OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
			"OTEL_SERVICE_NAME=containerd",
		)
	}

	return machine.Daemon{
		Name: "containerd",
		Argv: []string{p.Peer("containerd"), "--config=" + containerdConfigPath},
		Env:  env,
	}
}

// traced is the command line of one of trivet's programs that takes where to send spans.
func traced(s Seats, argv ...string) []string {
	if s.Traces != "" {
		argv = append(argv, "--tracing-endpoint="+s.Traces)
	}
	return argv
}

// Agent is the node agent of the node with this name and index.
func (p Programs) Agent(s Seats, node string, index int) machine.Daemon {
	name, program := "kubelet", p.Peer("kubelet")
	if s.Agent == "trivet" {
		name, program = "trivet-node", p.Own("trivet-node")
	}

	var ips []string
	for _, ip := range p.Stack.Machine(address.Node(index)) {
		ips = append(ips, ip.String())
	}

	argv := []string{
		program,
		"--kubeconfig=/etc/kubernetes/kubelet.conf",
		"--config=" + kubeletConfigPath,
		"--hostname-override=" + node,
		"--node-ip=" + strings.Join(ips, ","),
	}
	if p.Zones > 0 {
		argv = append(argv, fmt.Sprintf("--node-labels=topology.kubernetes.io/zone=zone%d", index%p.Zones+1))
	}

	return machine.Daemon{Name: name, Argv: argv}
}

// Netd is the network daemon of a node with trivet's plugin, for a network of these names.
func (p Programs) Netd(node string, n Network) machine.Daemon {
	argv := []string{
		p.Own("trivet-netd"),
		"--kubeconfig=/etc/kubernetes/trivet-netd.conf",
		"--node-name=" + node,
		"--cluster-cidr=" + p.Stack.Pods(),
		metricsOf("trivet-netd"),
	}
	if n != Ours.Network() {
		argv = append(argv, "--network="+n.Name, "--bridge="+n.Bridge)
	}
	return machine.Daemon{Name: "trivet-netd", Argv: argv}
}

// metricsOf is where a daemon serves its metrics for the agent to pass on.
func metricsOf(daemon string) string {
	return "--metrics-address=unix:///run/trivet/metrics/" + daemon + ".sock"
}

// poolSize is the sparse file that a node keeps its volumes in, unless it is said: nodes share the disk of
// one host, so none may take it all.
const poolSize = 5 << 30

// What the driver of a node is kept to, for what the specs of drivers ask of it: all inline volumes of pods
// together, in bytes, and volumes that pods use at a time, of which a node without them has no such bounds.
const (
	inlineMost  = 1 << 30
	volumesMost = 128
)

// CSI is the volume driver of a node, for volumes of so many bytes in all; 0: 5 GiB.
func (p Programs) CSI(s Seats, node string, volumes int64) machine.Daemon {
	return machine.Daemon{
		Name: "trivet-csi",
		Argv: traced(s,
			p.Own("trivet-csi"),
			"--kubeconfig=/etc/kubernetes/trivet-csi.conf",
			"--node-name="+node,
			fmt.Sprint("--pool-size=", cmp.Or(volumes, poolSize)),
			fmt.Sprint("--inline-most=", inlineMost),
			fmt.Sprint("--volumes-most=", volumesMost),
			metricsOf("trivet-csi"),
		),
	}
}

// KubeProxy serves Services on a machine. It waits half a minute for the Node with its name. The limit of
// tracked connections is the whole kernel's, so a machine leaves it alone; the timeouts are its own.
func (p Programs) KubeProxy(node, kubeconfig string) machine.Daemon {
	return machine.Daemon{
		Name: "kube-proxy",
		Argv: []string{
			p.Peer("kube-proxy"),
			"--kubeconfig=" + kubeconfig,
			"--hostname-override=" + node,
			"--proxy-mode=nftables",
			"--cluster-cidr=" + p.Stack.Pods(),
			"--conntrack-max-per-core=0",
			"--healthz-bind-address=127.0.0.1:10256",
			"--metrics-bind-address=127.0.0.1:10249",
		},
	}
}

// Plugins are the CNI plugins of a node, name -> program. upstream are the paths of the reference plugins.
func (p Programs) Plugins(s Seats, upstream []string) map[string]string {
	if s.CNI == "upstream" {
		plugins := map[string]string{}
		for _, program := range upstream {
			plugins[filepath.Base(program)] = program
		}

		return plugins
	}

	// containerd calls a plugin by the name loopback for every pod, whatever the configuration says.
	return map[string]string{
		"trivet-cni": p.Own("trivet-cni"),
		"loopback":   p.Own("trivet-cni"),
	}
}
