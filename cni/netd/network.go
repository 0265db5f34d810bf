package netd

import (
	"cmp"
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// The network that trivet-netd configures, its bridge, and the plugin.
const (
	networkName = "trivet"
	bridgeName  = "trivet0"
	pluginType  = "trivet-cni"
)

// networkConfig is the configuration list for a node with these pod CIDRs (CNI specification, section 1).
func networkConfig(podCIDRs, noMasq []netip.Prefix, mtu int) ([]byte, error) {
	var ranges [][]map[string]string
	for _, p := range podCIDRs {
		ranges = append(ranges, []map[string]string{{"subnet": p.String()}})
	}

	network := map[string]any{
		"cniVersion": "1.1.0", "name": networkName,
		"plugins": []map[string]any{{
			"type":             pluginType,
			"bridge":           bridgeName,
			"isDefaultGateway": true,
			"ipMasq":           true,
			"hairpinMode":      true,
			"hostRouted":       true,
			"lazyUnlink":       true,
			"mtu":              mtu,
			"noMasq":           texts(noMasq),
			"ipam":             map[string]any{"type": "host-local", "ranges": ranges, "bootScoped": true},
			"capabilities": map[string]bool{
				"portMappings": true,
				"ipRanges":     true,
				"ips":          true,
				"mac":          true,
			},
		}},
	}

	data, err := json.MarshalIndent(network, "", "  ")
	return append(data, '\n'), err
}

func texts(prefixes []netip.Prefix) []string {
	out := make([]string, len(prefixes))
	for i, p := range prefixes {
		out[i] = p.String()
	}
	return out
}

// podNetworks are the destinations that see pods' own addresses: the cluster CIDRs if they are known, else
// every node's pod CIDRs.
func podNetworks(clusterCIDRs []netip.Prefix, all []podcidr.Node) []netip.Prefix {
	if len(clusterCIDRs) > 0 {
		return clusterCIDRs
	}
	var union []netip.Prefix
	for _, n := range all {
		union = append(union, n.PodCIDRs...)
	}
	slices.SortFunc(union, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return slices.Compact(union)
}

// devicesOf are the indexes of the interfaces that have one of the node's addresses.
func devicesOf(own podcidr.Node, local []rtnl.InterfaceAddress) []int {
	var devices []int
	for _, l := range local {
		if slices.Contains(own.Addresses, l.Prefix.Addr()) {
			devices = append(devices, l.Index)
		}
	}
	return devices
}
