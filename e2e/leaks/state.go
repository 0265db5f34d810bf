package leaks

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netns"
)

// perPod are directories that hold something for a pod only: without any pod on the node, they are empty.
var perPod = []string{
	"/run/netns",
	"/run/trivet/cri/sandboxes/records",
	"/run/trivet/cri/containers/records",
	"/run/trivet/cri/rootfs/records",
	"/run/trivet/cri/rootfs/mounts",
	"/run/trivet/cri/monitor/containers",
	"/run/trivet/cri/monitor/exec",
	"/run/trivet/cri/monitor/tty",
	"/run/trivet/cri/oci/crun",
	"/run/trivet/cri/oci/runc",
	"/run/trivet/csi/staged",
	"/var/lib/trivet/cri/sandboxes",
	"/var/log/containers",
}

// nodeRecords lists what the CRI server, its monitor, the volume driver and the agent keep for each pod.
func nodeRecords(v View) ([]Leak, error) {
	if len(v.Live) > 0 {
		return nil, nil
	}

	var out []Leak
	for _, dir := range perPod {
		if v.OldLogs && strings.HasPrefix(dir, "/var/log/") {
			continue
		}

		names, err := entries(v.root(dir))
		if err != nil {
			return nil, err
		}

		for _, n := range names {
			out = append(out, Leak{"record", filepath.Join(dir, n)})
		}
	}

	for _, dir := range []string{"/run/trivet/cri/sandboxes", "/run/trivet/cri/containers"} {
		names, err := entries(v.root(dir))
		if err != nil {
			return nil, err
		}

		for _, n := range names {
			if n != "records" {
				out = append(out, Leak{"directory", filepath.Join(dir, n)})
			}
		}
	}

	return out, nil
}

// volumeDirs are where trivet-csi and local-path-provisioner keep something for each volume.
var volumeDirs = []string{
	"/var/lib/trivet/csi/volumes",
	"/var/lib/trivet/csi/images",
	"/var/lib/trivet/csi/pool/volumes",
	"/var/lib/local-path",
}

// nodeVolumes lists what is kept for volumes that the cluster does not know (any more).
func nodeVolumes(v View) ([]Leak, error) {
	var out []Leak
	for _, dir := range volumeDirs {
		names, err := entries(v.root(dir))
		if err != nil {
			return nil, err
		}

		for _, n := range names {
			volume := strings.TrimSuffix(strings.TrimSuffix(n, ".json"), ".img")
			if !slices.Contains(v.Volumes, volume) {
				out = append(out, Leak{"volume", filepath.Join(dir, n)})
			}
		}
	}

	return out, nil
}

// nodeElements counts the sandboxes that trivet-cni's sets and maps name, each in the comment
// "SANDBOX/INTERFACE" of an element.
func nodeElements(v View) ([]Leak, error) {
	ns, err := netns.GetFromPid(v.Pid)
	if err != nil {
		return nil, fmt.Errorf("network namespace of process %d: %w", v.Pid, err)
	}
	defer ns.Close()

	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return nil, err
	}

	list, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nft tables: %w", err)
	}

	// sandbox -> its elements
	named := map[string][]Leak{}
	for _, t := range list {
		if t.Name != "cni_trivet" {
			continue
		}

		sets, err := conn.GetSets(t)
		if err != nil {
			return nil, fmt.Errorf("list sets of nft table %s: %w", t.Name, err)
		}

		for _, s := range sets {
			elements, err := conn.GetSetElements(s)
			if err != nil {
				return nil, fmt.Errorf("list elements of nft set %s: %w", s.Name, err)
			}

			for _, e := range elements {
				if sandbox, _, ok := strings.Cut(e.Comment, "/"); ok {
					named[sandbox] = append(
						named[sandbox],
						Leak{"nft element", fmt.Sprintf("of %s, sandbox %s", s.Name, sandbox)},
					)
				}
			}
		}
	}

	if len(named) <= v.networks() {
		return nil, nil
	}

	var out []Leak
	for _, l := range named {
		out = append(out, l...)
	}

	return out, nil
}
