package config

import (
	"fmt"
	"net"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	kubeletapis "k8s.io/kubelet/pkg/apis"
)

// checkLabels applies kubelet's rules for --node-labels: a label that the API server would refuse keeps the
// node out.
func checkLabels(labels map[string]string) error {
	for key, value := range labels {
		wrong := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...)
		if len(wrong) > 0 {
			return fmt.Errorf("--node-labels: %s=%s: %s", key, value, strings.Join(wrong, "; "))
		}

		if !mayLabel(key) {
			return fmt.Errorf("--node-labels: a node may not give itself the label %s; those of "+
				"kubernetes.io and k8s.io must be one of %s or below one of %s", key,
				strings.Join(kubeletapis.KubeletLabels(), ", "),
				strings.Join(kubeletapis.KubeletLabelNamespaces(), ", "))
		}
	}

	return nil
}

// mayLabel reports whether NodeRestriction lets a node give itself a label.
func mayLabel(key string) bool {
	prefix, _, found := strings.Cut(key, "/")
	below := func(domain string) bool { return prefix == domain || strings.HasSuffix(prefix, "."+domain) }
	return !found || kubeletapis.IsKubeletLabel(key) || !below("kubernetes.io") && !below("k8s.io")
}

// checkNodeIPs accepts one address, or one of each family. An unspecified one only says which family is
// preferred.
func checkNodeIPs(ips []net.IP) error {
	if len(ips) > 2 || len(ips) == 2 && (ips[0].To4() == nil) == (ips[1].To4() == nil) {
		return fmt.Errorf("%v is neither an address nor a pair of an IPv4 and an IPv6 one", ips)
	}
	for _, ip := range ips {
		if ip.IsLoopback() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || ip.Equal(net.IPv4bcast) {
			return fmt.Errorf("%v cannot be reached from other nodes", ip)
		}
	}
	return nil
}
