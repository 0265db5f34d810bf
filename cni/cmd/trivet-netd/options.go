package main

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/cni/netd"
	"github.com/trivet-node/trivet/cni/netd/overlay"
	"github.com/trivet-node/trivet/cni/netd/routing"
	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-netd is the network daemon of a Kubernetes node. It watches the cluster's Nodes, writes
the network configuration that makes the container runtime use the CNI plugin trivet-cni with the
node's own pod CIDRs, once the plugin says that it can serve, and keeps a route to the pods of every
other node: directly to a node on the same network, and through a tunnel (VXLAN) to one behind a
router. "trivet-netd doctor", with the same flags, says what is wrong.`

const aboutDoctor = `trivet-netd doctor says what is wrong with the network of this node, one finding
a line: what the kernel lacks, what differs between the cluster and the node, and what pods that
have ended left behind. It changes nothing, and ends with status 1 if something is wrong. Give it
the flags that trivet-netd has on this node.`

// The texts of flags that take more than a line.
const (
	aboutKubeconfig = `credentials for the Kubernetes API (get, list,
watch of nodes; list, watch of servicecidrs, networkpolicies, pods and namespaces; create of events
in the namespace default);
"" takes those of the pod it runs in`

	aboutPlugin = `the plugin that the runtime will call; it is asked for its STATUS before the
configuration is written`

	aboutNetwork = `name of the pods' network: that of another plugin's configuration keeps the addresses of
the pods that it has attached`
	aboutBridge = `name of the network's bridge: that of another plugin keeps the pods that are on it
connected`

	aboutClusterCIDR = `pod networks of the whole cluster, comma separated: what
is sent there keeps the pod's address, and a Node that claims pods elsewhere is refused
(default: unknown. Then a pod CIDR is admitted that is private and about as large as
this node's, and the configuration is written again whenever a node joins)`

	aboutServiceCIDR = `networks of Services, comma separated, beside those that
the API names (ServiceCIDR): a Node that claims pods there is refused`

	aboutHealth = `address that answers /healthz (200 while the daemon works) and /readyz (200 when
configuration and routes are as they should be; else 503), both with the last sync, errors and notes;
"" for none`

	aboutOverlay = `which nodes are reached through tunnels (VXLAN): auto, those that are on no network
of this node; always, all; never, none (for routers that carry the packets of pods themselves)`

	aboutPolicy = `keep NetworkPolicies in force (list, watch of networkpolicies, pods and
namespaces); false leaves them to another program, and removes the rules that are there`

	aboutGuard = `drop what a pod sends with another MAC address or IP address than its own, where the
kernel can; false is for nodes with pods that forward for others (routers, VPN gateways)`

	aboutCleanup = `remove the routes, the tunnels, the rules of network policies and the configuration that
trivet-netd made on this node, and end`
)

// options are the command line, checked.
type options struct {
	netd.Config
	kubeconfig  string
	healthz     string
	metrics     string
	installFrom string
	cleanup     bool
}

func parse(env *program.Env, about string) (options, error) {
	var o options
	var clusterCIDR, serviceCIDR, mode string
	var port uint
	nodeName := os.Getenv("NODE_NAME")

	fs := env.Flags(about)
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", aboutKubeconfig)
	fs.StringVar(
		&o.NodeName,
		"node-name",
		nodeName,
		"name of the Node (default: $NODE_NAME, else the host name)",
	)

	fs.StringVar(
		&o.ConfDir,
		"conf-dir",
		"/etc/cni/net.d",
		"directory of the runtime's network configurations",
	)

	fs.StringVar(&o.ConfName, "conf-name", "10-trivet.conflist", "name of the file written there")
	fs.StringVar(&o.Plugin, "plugin", "/opt/cni/bin/trivet-cni", aboutPlugin)
	fs.StringVar(&o.Network, "network", netd.DefaultNetwork, aboutNetwork)
	fs.StringVar(&o.Bridge, "bridge", netd.DefaultBridge, aboutBridge)
	fs.StringVar(&o.installFrom, "install-plugin", "", "copy this file to --plugin first (for a DaemonSet)")
	fs.StringVar(&clusterCIDR, "cluster-cidr", "", aboutClusterCIDR)
	fs.StringVar(&serviceCIDR, "service-cidr", "", aboutServiceCIDR)
	fs.StringVar(&o.healthz, "healthz-address", "127.0.0.1:10261", aboutHealth)
	fs.StringVar(&o.metrics, metric.Flag, "", metric.Usage)
	fs.StringVar(&mode, "overlay", string(routing.Auto), aboutOverlay)
	fs.UintVar(&port, "overlay-port", overlay.DefaultPort, "UDP port of the tunnels, the same on all nodes")
	fs.BoolVar(&o.Policies, "network-policy", true, aboutPolicy)
	fs.BoolVar(&o.SourceGuard, "source-guard", true, aboutGuard)
	fs.BoolVar(&o.cleanup, "cleanup", false, aboutCleanup)
	if err := env.Parse(fs); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, &program.UsageError{Err: fmt.Errorf("unexpected argument %q", fs.Arg(0))}
	}

	// What is wrong from here on is wrong use as well.
	if err := o.setOverlay(mode, port); err != nil {
		return o, &program.UsageError{Err: err}
	}
	if err := o.complete(clusterCIDR, serviceCIDR); err != nil {
		return o, &program.UsageError{Err: err}
	}

	return o, nil
}

// complete checks the options, and parses those that are lists.
func (o *options) complete(clusterCIDR, serviceCIDR string) (err error) {
	for _, path := range []struct{ flag, value string }{
		{"--conf-dir", o.ConfDir},
		{"--plugin", o.Plugin},
	} {
		if !filepath.IsAbs(path.value) {
			return fmt.Errorf("%s %q must be an absolute path", path.flag, path.value)
		}
	}

	// Runtimes read .conf files as single plugins, and only a .conflist as a list.
	if strings.Contains(o.ConfName, "/") || filepath.Ext(o.ConfName) != ".conflist" {
		return fmt.Errorf("--conf-name %q must be a file name that ends with .conflist", o.ConfName)
	}

	if err := netd.CheckNames(o.Network, o.Bridge); err != nil {
		return fmt.Errorf("--network %q, --bridge %q: %w", o.Network, o.Bridge, err)
	}
	if err := metric.CheckAddress(o.metrics); err != nil {
		return fmt.Errorf("--%s: %w", metric.Flag, err)
	}
	if o.ClusterCIDRs, err = parsePrefixes(clusterCIDR); err != nil {
		return fmt.Errorf("--cluster-cidr: %w", err)
	}
	if o.ServiceCIDRs, err = parsePrefixes(serviceCIDR); err != nil {
		return fmt.Errorf("--service-cidr: %w", err)
	}

	if o.NodeName == "" {
		if o.NodeName, err = os.Hostname(); err != nil {
			return fmt.Errorf("--node-name is not given and there is no host name: %w", err)
		}
	}

	// As the agent names the Node of a host.
	o.NodeName = strings.ToLower(o.NodeName)
	return nil
}

func (o *options) setOverlay(mode string, port uint) error {
	o.Overlay = routing.Mode(mode)
	if !slices.Contains(routing.Modes, o.Overlay) {
		return fmt.Errorf("--overlay %q must be one of %v", mode, routing.Modes)
	}
	if port == 0 || port > math.MaxUint16 {
		return fmt.Errorf("--overlay-port %d must be a port: 1 to %d", port, math.MaxUint16)
	}
	o.OverlayPort = uint16(port)
	return nil
}

// parsePrefixes parses a comma separated list.
func parsePrefixes(list string) (all []netip.Prefix, err error) {
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}

		p, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, err
		}

		all = append(all, p.Masked())
	}

	return all, nil
}
