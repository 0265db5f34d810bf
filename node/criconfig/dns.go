package criconfig

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DNS is the content of a resolv.conf(5).
type DNS struct {
	Servers  []string
	Searches []string
	Options  []string
}

// Limits of glibc and of Kubernetes' validation.
const (
	maxServers     = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// ParseResolvConf reads a resolv.conf. Lines that it does not know are skipped, as the resolver does.
func ParseResolvConf(data string) DNS {
	var out DNS
	for line := range strings.Lines(data) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}

		switch fields[0] {
		case "nameserver":
			out.Servers = append(out.Servers, fields[1])
		case "options":
			out.Options = append(out.Options, fields[1:]...)
		case "search", "domain":
			// The last line of these wins.
			out.Searches = nil
			for _, s := range fields[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}

				out.Searches = append(out.Searches, s)
			}
		}
	}

	return out
}

// podDNS applies the pod's DNS policy and then its dnsConfig.
func podDNS(node Node, pod *v1.Pod) *cri.DNSConfig {
	out := policyDNS(node, pod)
	if c := pod.Spec.DNSConfig; c != nil {
		out.Servers = unique(append(out.Servers, c.Nameservers...))
		out.Searches = unique(append(out.Searches, c.Searches...))
		out.Options = mergeOptions(out.Options, c.Options)
	}
	return &cri.DNSConfig{
		Servers:  out.Servers[:min(len(out.Servers), maxServers)],
		Searches: limitSearches(out.Searches),
		Options:  out.Options,
	}
}

// policyDNS is the cluster's DNS, the node's, or none.
func policyDNS(node Node, pod *v1.Pod) DNS {
	policy := pod.Spec.DNSPolicy
	if policy == v1.DNSNone {
		return DNS{}
	}

	onHost := policy == v1.DNSClusterFirst && pod.Spec.HostNetwork
	if onHost || policy == v1.DNSDefault || len(node.ClusterDNS) == 0 {
		return DNS{
			Servers:  slices.Clone(node.HostDNS.Servers),
			Searches: slices.Clone(node.HostDNS.Searches),
			Options:  slices.Clone(node.HostDNS.Options),
		}
	}

	out := DNS{Servers: slices.Clone(node.ClusterDNS), Options: []string{"ndots:5"}}
	if node.ClusterDomain != "" {
		svc := "svc." + node.ClusterDomain
		out.Searches = []string{pod.Namespace + "." + svc, svc, node.ClusterDomain}
	}

	out.Searches = unique(append(out.Searches, node.HostDNS.Searches...))
	return out
}

// unique drops what is there before.
func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// mergeOptions replaces options by those of the same name, and adds the others.
func mergeOptions(old []string, more []v1.PodDNSConfigOption) []string {
	out := slices.Clone(old)
	for _, o := range more {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}

		sameName := func(s string) bool {
			name, _, _ := strings.Cut(s, ":")
			return name == o.Name
		}
		if i := slices.IndexFunc(out, sameName); i >= 0 {
			out[i] = text
		} else {
			out = append(out, text)
		}
	}

	return out
}

// limitSearches drops the last ones that are too many or too long.
func limitSearches(in []string) []string {
	in = in[:min(len(in), maxSearches)]
	for len(strings.Join(in, " ")) > maxSearchChars {
		in = in[:len(in)-1]
	}
	return in
}
