package netd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/durable"
)

// bridgeName is the bridge of the network that trivet-netd configures.
const bridgeName = "trivet0"

// networkConfig is the configuration list for a node with these pod CIDRs (CNI specification, section 1).
func networkConfig(podCIDRs, noMasq []netip.Prefix, mtu int) ([]byte, error) {
	var ranges [][]map[string]string
	for _, p := range podCIDRs {
		ranges = append(ranges, []map[string]string{{"subnet": p.String()}})
	}
	network := map[string]any{
		"cniVersion": "1.1.0", "name": "trivet",
		"plugins": []map[string]any{{
			"type": "trivet-cni", "bridge": bridgeName, "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true, "hostRouted": true,
			"lazyUnlink": true, "mtu": mtu, "noMasq": texts(noMasq),
			"ipam":         map[string]any{"type": "host-local", "ranges": ranges, "bootScoped": true},
			"capabilities": map[string]bool{"portMappings": true, "ipRanges": true, "ips": true, "mac": true},
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

// podNetworks are the destinations that see pods' own addresses: the cluster CIDRs if they are known, else every node's pod CIDRs.
func podNetworks(clusterCIDRs []netip.Prefix, all []Node) []netip.Prefix {
	if len(clusterCIDRs) > 0 {
		return clusterCIDRs
	}
	var union []netip.Prefix
	for _, n := range all {
		union = append(union, n.PodCIDRs...)
	}
	slices.SortFunc(union, func(a, b netip.Prefix) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(union)
}

// publish puts the configuration where the runtime looks for it, if the plugin says that it can serve it. A file that is there already
// stays until the new one is whole.
func publish(ctx context.Context, o Options, data []byte) (written bool, err error) {
	path := filepath.Join(o.ConfDir, o.ConfName)
	now, err := os.ReadFile(path)
	if err == nil && bytes.Equal(now, data) {
		return false, nil
	}
	if err := askStatus(ctx, o.Plugin, data); err != nil {
		return false, err
	}
	if err := os.MkdirAll(o.ConfDir, 0o755); err != nil {
		return false, err
	}
	return true, durable.WriteFile(path, data, 0o644)
}

const statusTimeout = 10 * time.Second

// askStatus runs the plugin's STATUS with the one plugin of the list, as a runtime would.
func askStatus(ctx context.Context, plugin string, list []byte) error {
	var l struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(list, &l); err != nil {
		return err
	}
	l.Plugins[0]["cniVersion"], l.Plugins[0]["name"] = l.CNIVersion, l.Name
	stdin, err := json.Marshal(l.Plugins[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, plugin)
	c.Env = append(os.Environ(), "CNI_COMMAND=STATUS", "CNI_PATH="+filepath.Dir(plugin))
	c.Stdin = bytes.NewReader(stdin)
	out, err := c.Output()
	if err == nil {
		return nil
	}
	var told struct{ Msg, Details string }
	if json.Unmarshal(out, &told) == nil && told.Msg != "" {
		return fmt.Errorf("plugin %s: %s: %s", plugin, told.Msg, told.Details)
	}
	return fmt.Errorf("plugin %s: %w %s", plugin, err, strings.TrimSpace(string(out)))
}

// Install copies the plugin to path, whole or not at all; an equal one stays.
func Install(from, path string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("install plugin: %w", err)
	}
	if now, err := os.ReadFile(path); err == nil && bytes.Equal(now, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("install plugin: %w", err)
	}
	if err := durable.WriteFile(path, data, 0o755); err != nil {
		return fmt.Errorf("install plugin: %w", err)
	}
	return nil
}

// forward lets the host route between pods and networks.
func forward(podCIDRs []netip.Prefix) error {
	var err error
	for _, p := range podCIDRs {
		name := "/proc/sys/net/ipv6/conf/all/forwarding"
		if p.Addr().Is4() {
			name = "/proc/sys/net/ipv4/ip_forward"
		}
		if now, e := os.ReadFile(name); e == nil && strings.TrimSpace(string(now)) == "1" {
			continue
		}
		if e := os.WriteFile(name, []byte("1"), 0o644); e != nil {
			err = errors.Join(err, fmt.Errorf("let the host forward packets of pods %s: %w", p, e))
		}
	}
	return err
}
