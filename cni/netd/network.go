package netd

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/utils"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// The names of the network that trivet-netd configures and of its bridge, unless Config has others.
const (
	DefaultNetwork = "trivet"
	DefaultBridge  = "trivet0"
)

const pluginType = "trivet-cni"

// network is what a node's network configuration says.
type network struct {
	name     string
	bridge   string
	podCIDRs []netip.Prefix
	noMasq   []netip.Prefix
	mtu      int
	// sourceGuard has the plugin bind pods to their addresses.
	sourceGuard bool
	// policies has the plugin hold pods until their network policies are in force.
	policies bool
}

// configuration returns the list of the network's plugins, of which there is one (CNI specification, section
// 1).
func (n network) configuration() ([]byte, error) {
	var ranges [][]map[string]string
	for _, p := range n.podCIDRs {
		ranges = append(ranges, []map[string]string{{"subnet": p.String()}})
	}

	plugin := map[string]any{
		"type":             pluginType,
		"bridge":           n.bridge,
		"isDefaultGateway": true,
		"ipMasq":           true,
		"hairpinMode":      true,
		"hostRouted":       true,
		"lazyUnlink":       true,
		"mtu":              n.mtu,
		"noMasq":           texts(n.noMasq),
		"ipam": map[string]any{
			"type":       "host-local",
			"ranges":     ranges,
			"bootScoped": true,
		},
		"capabilities": map[string]bool{
			"portMappings": true,
			"ipRanges":     true,
			"ips":          true,
			"mac":          true,
			"bandwidth":    true,
		},
	}

	if n.sourceGuard {
		plugin["sourceGuard"] = true
	}
	if n.policies {
		plugin["networkPolicy"] = true
	}

	// encoding/json writes maps sorted by key, so the same node has the same file.
	list := map[string]any{
		"cniVersion": "1.1.0",
		"name":       n.name,
		"plugins":    []map[string]any{plugin},
	}

	data, err := json.MarshalIndent(list, "", "  ")
	return append(data, '\n'), err
}

// CheckNames returns an error that says what is wrong with the names of a network and of its bridge.
func CheckNames(network, bridge string) error {
	// As the plugin's caller does.
	if err := utils.ValidateNetworkName(network); err != nil {
		return err
	}

	_, err := poolOf(network, bridge)
	return err
}

// poolOf returns where the network's reservations and records are: that does not depend on the node's pod
// CIDRs.
func poolOf(name, bridge string) (l ipam.Location, err error) {
	anyPods := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	list, err := network{name: name, bridge: bridge, podCIDRs: anyPods}.configuration()
	if err != nil {
		return l, err
	}
	c, err := parseConfig(list)
	if err != nil {
		return l, err
	}
	return c.IPAM.Pool, nil
}

// pluginConfig returns the configuration of the list's first plugin as a runtime hands it over: with name and
// version of the list, and without its capabilities.
func pluginConfig(list []byte) ([]byte, error) {
	var l struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(list, &l); err != nil {
		return nil, err
	}
	if len(l.Plugins) == 0 {
		return nil, errors.New("configuration list without plugins")
	}

	p := l.Plugins[0]
	p["cniVersion"] = l.CNIVersion
	p["name"] = l.Name
	delete(p, "capabilities")
	return json.Marshal(p)
}

// texts returns the prefixes as strings; none is an empty list, not null.
func texts(prefixes []netip.Prefix) []string {
	out := make([]string, len(prefixes))
	for i, p := range prefixes {
		out[i] = p.String()
	}
	return out
}

// podNetworks returns the destinations that see pods' own addresses: the cluster CIDRs if they are known,
// else every node's pod CIDRs.
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

// devicesOf returns the indexes of the interfaces that have one of the node's addresses.
func devicesOf(own podcidr.Node, local []rtnl.InterfaceAddress) []int {
	var devices []int
	for _, l := range local {
		if slices.Contains(own.Addresses, l.Prefix.Addr()) {
			devices = append(devices, l.Index)
		}
	}
	return devices
}
