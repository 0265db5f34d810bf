package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/cni/netd"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-netd is the network daemon of a Kubernetes node. It watches the cluster's Nodes, writes the network configuration
that makes the container runtime use the CNI plugin trivet-cni with the node's own pod CIDRs, once the plugin says that it can serve,
and keeps a route to the pods of every other node that is on the same network. Nodes behind a router are named in the log: there is no overlay.`

type options struct {
	netd.Options
	kubeconfig, healthz, installFrom string
	cleanup                          bool
}

func parse(env *program.Env) (options, error) {
	var o options
	var clusterCIDR, serviceCIDR string
	fs := env.Flags(about)
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", `credentials for the Kubernetes API (get, list,
watch of nodes; list, watch of servicecidrs; create of events in the namespace default);
"" takes those of the pod it runs in`)
	fs.StringVar(
		&o.NodeName,
		"node-name",
		os.Getenv("NODE_NAME"),
		"name of the Node (default: $NODE_NAME, else the host name)",
	)

	fs.StringVar(
		&o.ConfDir,
		"conf-dir",
		"/etc/cni/net.d",
		"directory where the runtime looks for network configurations",
	)

	fs.StringVar(&o.ConfName, "conf-name", "10-trivet.conflist", "name of the file written there")
	fs.StringVar(
		&o.Plugin,
		"plugin",
		"/opt/cni/bin/trivet-cni",
		"the plugin that the runtime will call; its STATUS is asked before the configuration is written",
	)

	fs.StringVar(
		&o.installFrom,
		"install-plugin",
		"",
		"copy this file to --plugin first (for a DaemonSet, whose image carries trivet-cni)",
	)

	fs.StringVar(&clusterCIDR, "cluster-cidr", "", `pod networks of the whole cluster, comma separated: what
is sent there keeps the pod's address, and a Node that claims pods elsewhere is refused
(default: unknown. Then a pod CIDR is believed that is private and about as large as
this node's, and the configuration is written anew whenever a node joins)`)

	fs.StringVar(&serviceCIDR, "service-cidr", "", `networks of Services, comma separated, beside those that
the API names (ServiceCIDR): a Node that claims pods there is refused`)
	fs.StringVar(
		&o.healthz,
		"healthz-address",
		"127.0.0.1:10261",
		`address that answers /healthz (200 while the daemon works) and /readyz (200 when configuration and
routes are as they have to be; else 503), both with the last sync, errors and notes; "" for none`,
	)

	fs.BoolVar(
		&o.cleanup,
		"cleanup",
		false,
		"remove the routes and the configuration that trivet-netd made on this node, and end",
	)
	if err := env.Parse(fs); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, &program.UsageError{Err: fmt.Errorf("unexpected argument %q", fs.Arg(0))}
	}
	if err := o.complete(clusterCIDR, serviceCIDR); err != nil {
		return o, &program.UsageError{Err: err}
	}

	return o, nil
}

func (o *options) complete(clusterCIDR, serviceCIDR string) error {
	for flag, path := range map[string]string{"--conf-dir": o.ConfDir, "--plugin": o.Plugin} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%s %q must be an absolute path", flag, path)
		}
	}

	if strings.Contains(o.ConfName, "/") || filepath.Ext(o.ConfName) != ".conflist" {
		return fmt.Errorf("--conf-name %q must be a file name that ends with .conflist", o.ConfName)
	}

	var err error
	if o.ClusterCIDRs, err = networks("--cluster-cidr", clusterCIDR); err != nil {
		return err
	}
	if o.ServiceCIDRs, err = networks("--service-cidr", serviceCIDR); err != nil {
		return err
	}

	if o.NodeName == "" {
		if o.NodeName, err = os.Hostname(); err != nil {
			return fmt.Errorf("--node-name is not given and there is no host name: %w", err)
		}
	}

	return nil
}

// networks reads a comma separated list of prefixes.
func networks(flag, list string) (all []netip.Prefix, err error) {
	for word := range strings.SplitSeq(list, ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		p, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}
