package config

import (
	"flag"
	"fmt"
	"net"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Flags are kubelet's flags that are served. Apply lays those that were given over the configuration file.
type Flags struct {
	set    *flag.FlagSet
	File   string
	values map[string]*string
	// Ignored are flags that were given and have no effect here.
	Ignored []string
}

// served are flags that change the configuration; each has a line of help.
var served = [][2]string{
	{"kubeconfig", "file with the node's credentials; written after a bootstrap. Empty: no API server"},
	{"bootstrap-kubeconfig", "file with a bootstrap token, used to get credentials when --kubeconfig has none"},
	{"cert-dir", "directory of the node's certificates (default /var/lib/kubelet/pki)"},
	{"root-dir", "directory of pods and volumes (default /var/lib/kubelet)"},
	{"hostname-override", "name of the node (default: the hostname)"},
	{"node-ip", "addresses of the node, comma-separated, primary first (default: that of the default route)"},
	{"container-runtime-endpoint", "CRI socket (default unix:///run/trivet/cri.sock)"},
	{"image-service-endpoint", "CRI image socket, if it is another one"},
	{"node-labels", "labels of the node: key=value,..."},
	{"register-with-taints", "taints of a new node: key=value:effect,..."},
	{"register-node", "make the Node object (default true)"},
	{"provider-id", "provider ID of the node"},
	{"cluster-dns", "addresses of the cluster's DNS, comma-separated"},
	{"cluster-domain", "domain of the cluster, e.g. cluster.local"},
	{"resolv-conf", "the node's resolver configuration (default /etc/resolv.conf)"},
	{"cgroup-driver", "cgroupfs or systemd (default: what the runtime says)"},
	{"cgroup-root", "cgroup below which kubepods is made (default: the root)"},
	{"max-pods", "number of pods (default 110)"},
	{"pod-manifest-path", "directory of static pods"},
	{"address", "address of the agent's API (default 0.0.0.0)"},
	{"port", "port of the agent's API (default 10250)"},
	{"healthz-port", "port of /healthz, 0: none (default 10248)"},
	{"healthz-bind-address", "address of /healthz (default 127.0.0.1)"},
	{"client-ca-file", "CA of the clients of the agent's API"},
	{"tls-cert-file", "serving certificate (default: made or asked for)"},
	{"tls-private-key-file", "key of the serving certificate"},
	{"anonymous-auth", "let anonymous requests in, to be authorised (default false)"},
	{"authentication-token-webhook", "ask the API server about tokens (default true)"},
	{"authorization-mode", "Webhook or AlwaysAllow (default Webhook)"},
	{"rotate-certificates", "renew the client certificate before it ends (default true)"},
	{"seccomp-default", "RuntimeDefault seccomp where pods say nothing"},
}

// ignored are kubelet's flags that scripts pass and that have no effect here.
var ignored = []string{"pod-infra-container-image", "fail-swap-on", "runtime-cgroups", "kubelet-cgroups", "cloud-provider", "feature-gates", "read-only-port",
	"container-runtime", "network-plugin", "config-dir", "eviction-hard", "system-reserved", "kube-reserved", "enforce-node-allocatable", "fail-cgroupv1",
	"authentication-token-webhook-cache-ttl", "v", "logging-format", "image-gc-high-threshold", "image-gc-low-threshold", "cgroups-per-qos"}

// Register adds the flags to the set.
func Register(set *flag.FlagSet) *Flags {
	f := &Flags{set: set, values: map[string]*string{}}
	set.StringVar(&f.File, "config", "", "file with a KubeletConfiguration (kubelet.config.k8s.io/v1beta1)")
	for _, s := range served {
		f.values[s[0]] = boolish(set, s[0], s[1])
	}
	for _, name := range ignored {
		boolish(set, name, "accepted for compatibility with kubelet, no effect")
	}
	return f
}

// boolish is a string flag that may stand alone, meaning true, when it is a yes-or-no one.
func boolish(set *flag.FlagSet, name, help string) *string {
	v := new(string)
	switch name {
	case "register-node", "anonymous-auth", "authentication-token-webhook", "rotate-certificates", "seccomp-default", "fail-swap-on", "fail-cgroupv1", "cgroups-per-qos":
		set.BoolFunc(name, help, func(s string) error { *v = s; return nil })
	default:
		set.StringVar(v, name, "", help)
	}
	return v
}

// Apply lays the flags that were given over c.
func (f *Flags) Apply(c *Config) (err error) {
	f.set.Visit(func(g *flag.Flag) {
		v, ok := f.values[g.Name]
		switch {
		case g.Name == "config" || err != nil:
		case ok:
			if e := c.setFlag(g.Name, *v); e != nil {
				err = fmt.Errorf("--%s=%s: %w", g.Name, *v, e)
			}
		default:
			for _, name := range ignored {
				if name == g.Name {
					f.Ignored = append(f.Ignored, name)
				}
			}
		}
	})
	return err
}

func (c *Config) setFlag(name, v string) (err error) {
	k := &c.Kubelet
	texts := map[string]*string{"kubeconfig": &c.Kubeconfig, "bootstrap-kubeconfig": &c.Bootstrap, "cert-dir": &c.CertDir, "root-dir": &c.RootDir,
		"hostname-override": &c.NodeName, "container-runtime-endpoint": &c.RuntimeEndpoint, "image-service-endpoint": &c.ImageEndpoint,
		"provider-id": &c.ProviderID, "cluster-domain": &k.ClusterDomain, "cgroup-driver": &k.CgroupDriver, "cgroup-root": &k.CgroupRoot,
		"pod-manifest-path": &k.StaticPodPath, "address": &k.Address, "healthz-bind-address": &k.HealthzBindAddress,
		"client-ca-file": &k.Authentication.X509.ClientCAFile, "tls-cert-file": &k.TLSCertFile, "tls-private-key-file": &k.TLSPrivateKeyFile,
		"authorization-mode": &k.Authorization.Mode}
	if p := texts[name]; p != nil {
		*p = v
		return nil
	}
	switch name {
	case "node-ip":
		c.NodeIPs, err = parseIPs(v)
	case "node-labels":
		c.Labels, err = parseLabels(v)
	case "register-with-taints":
		k.RegisterWithTaints, err = parseTaints(v)
	case "cluster-dns":
		k.ClusterDNS = strings.Split(v, ",")
	case "resolv-conf":
		k.ResolverConfig = &v
	case "max-pods":
		k.MaxPods, err = strconv.ParseInt(v, 10, 32)
	case "port":
		k.Port, err = parsePort(v)
	case "healthz-port":
		var p int32
		p, err = parsePort(v)
		k.HealthzPort = &p
	default:
		err = c.setSwitch(name, v)
	}
	return err
}

func (c *Config) setSwitch(name, v string) error {
	on, err := strconv.ParseBool(v)
	if err != nil {
		return err
	}
	switch name {
	case "register-node":
		c.Kubelet.RegisterNode = &on
	case "anonymous-auth":
		c.Kubelet.Authentication.Anonymous.Enabled = &on
	case "authentication-token-webhook":
		c.Kubelet.Authentication.Webhook.Enabled = &on
	case "rotate-certificates":
		c.Kubelet.RotateCertificates = on
	case "seccomp-default":
		c.Kubelet.SeccompDefault = &on
	}
	return nil
}

func parsePort(v string) (int32, error) {
	n, err := strconv.ParseUint(v, 10, 16)
	return int32(n), err
}

func parseIPs(v string) ([]net.IP, error) {
	var out []net.IP
	for s := range strings.SplitSeq(v, ",") {
		ip := net.ParseIP(strings.TrimSpace(s))
		if ip == nil {
			return nil, fmt.Errorf("%q is no IP address", s)
		}
		out = append(out, ip)
	}
	return out, nil
}

func parseLabels(v string) (map[string]string, error) {
	out := map[string]string{}
	for s := range strings.SplitSeq(v, ",") {
		if s == "" {
			continue
		}
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%q is not key=value", s)
		}
		out[key] = value
	}
	return out, nil
}

func parseTaints(v string) ([]v1.Taint, error) {
	var out []v1.Taint
	for s := range strings.SplitSeq(v, ",") {
		if s == "" {
			continue
		}
		head, effect, ok := strings.Cut(s, ":")
		key, value, _ := strings.Cut(head, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%q is not key=value:effect", s)
		}
		switch v1.TaintEffect(effect) {
		case v1.TaintEffectNoSchedule, v1.TaintEffectPreferNoSchedule, v1.TaintEffectNoExecute:
		default:
			return nil, fmt.Errorf("%q is no effect of a taint", effect)
		}
		out = append(out, v1.Taint{Key: key, Value: value, Effect: v1.TaintEffect(effect)})
	}
	return out, nil
}
