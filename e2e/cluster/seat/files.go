package seat

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/machine"
)

// Where the configurations are, inside a node.
const (
	kubeletConfigPath    = "/etc/trivet/kubelet.json"
	containerdConfigPath = "/etc/trivet/containerd.toml"
	criConfigPath        = "/etc/trivet/cri.toml"
)

// The configurations of the network, inside a node. Runtimes take the first.
const (
	UpstreamConflist = "/etc/cni/net.d/10-pods.conflist"
	NetdConflist     = "/etc/cni/net.d/10-trivet.conflist"
)

// testHandler is the handler of the RuntimeClasses of the published suite: the OCI runtime of the node.
const testHandler = "test-handler"

// mirrored are the registries that the one on the LAN stands for, with their servers.
var mirrored = map[string]string{
	"docker.io":       "https://registry-1.docker.io",
	"registry.k8s.io": "https://registry.k8s.io",
	"k8s.gcr.io":      "https://k8s.gcr.io",
	"gcr.io":          "https://gcr.io",
}

// RuntimeFiles are what a CRI server reads, path -> content: its own configuration, and the mirrors.
func RuntimeFiles(s Seats) map[string]string {
	files := map[string]string{
		containerdConfigPath: containerdConfig(s),
		criConfigPath:        fmt.Sprintf("[runtimes.%s]\nprogram = %q\n", testHandler, s.OCI),
	}
	for name, server := range mirrored {
		files["/etc/containerd/certs.d/"+name+"/hosts.toml"] = fmt.Sprintf(
			"server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n",
			server, "http://"+address.Registry)
	}
	return files
}

// AgentFiles are what a node agent reads, path -> content, beside its credentials.
func AgentFiles(s Seats) map[string]string {
	return map[string]string{kubeletConfigPath: kubeletConfig(s)}
}

// kubeletConfig is a KubeletConfiguration v1beta1, for kubelet and trivet-node alike.
func kubeletConfig(s Seats) string {
	config := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",

		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
		},
		"authorization":     map[string]any{"mode": "Webhook"},
		"tlsCertFile":       "/etc/kubernetes/pki/kubelet.crt",
		"tlsPrivateKeyFile": "/etc/kubernetes/pki/kubelet.key",

		"clusterDNS":               []string{address.DNSService},
		"clusterDomain":            "cluster.local",
		"cgroupDriver":             s.CgroupDriver(),
		"containerRuntimeEndpoint": s.CRIEndpoint(),
		"staticPodPath":            "/etc/kubernetes/manifests",

		"failCgroupV1": false,
		"failSwapOn":   false,
		"podPidsLimit": 4096,

		"evictionHard": map[string]string{
			"memory.available":  "50Mi",
			"nodefs.available":  "1%",
			"imagefs.available": "1%",
			"nodefs.inodesFree": "1%",
		},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
	}
	if s.Traces != "" {
		config["tracing"] = map[string]any{"endpoint": s.Traces, "samplingRatePerMillion": 1_000_000}
	}

	return mustIndent(config)
}

func containerdConfig(s Seats) string {
	return `version = 3

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
` + containerdRuntime("runc", s) + containerdRuntime(testHandler, s) + `
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'registry.k8s.io/pause:3.10.2'

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '/etc/containerd/certs.d'
`
}

// containerdRuntime is the OCI runtime of the node as a handler of containerd.
func containerdRuntime(handler string, s Seats) string {
	return fmt.Sprintf(`
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.%[1]s]
runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.%[1]s.options]
BinaryName = '%[2]s'
SystemdCgroup = %[3]t
`, handler, s.OCI, s.Init == machine.Systemd)
}

// UpstreamNetwork is the network configuration of the upstream plugins for a node with these ranges of pod
// addresses, and its path. A network add-on would write it.
func UpstreamNetwork(n Network, podCIDRs []string) (path, conflist string) {
	var ranges [][]map[string]string
	var routes []map[string]string
	for _, cidr := range podCIDRs {
		ranges = append(ranges, []map[string]string{{"subnet": cidr}})
		everything := "0.0.0.0/0"
		if strings.Contains(cidr, ":") {
			everything = "::/0"
		}

		routes = append(routes, map[string]string{"dst": everything})
	}

	return UpstreamConflist, mustIndent(map[string]any{
		"cniVersion": "1.0.0",
		"name":       n.Name,
		"plugins": []any{
			map[string]any{
				"type":        "bridge",
				"bridge":      n.Bridge,
				"isGateway":   true,
				"ipMasq":      false,
				"hairpinMode": true,
				"ipam": map[string]any{
					"type":   "host-local",
					"ranges": ranges,
					"routes": routes,
				},
			},
			map[string]any{
				"type":         "portmap",
				"backend":      "nftables",
				"capabilities": map[string]bool{"portMappings": true},
			},
		},
	})
}

// mustIndent encodes plain data, which cannot fail.
func mustIndent(v any) string {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err)
	}
	return string(data)
}
