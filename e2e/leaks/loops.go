package leaks

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/e2e/loopdev"
)

// nodeLoops lists the loop devices of a node on files of volumes that are gone, and second ones on the same
// file.
func nodeLoops(v View) ([]Leak, error) {
	if v.Keep == "" {
		return nil, nil
	}
	devices, err := VolumeLoops(v.Keep)
	return staleLoops(devices, v.Volumes), err
}

// VolumeLoops returns the loop devices on files that a volume driver may have attached on a node, device ->
// file. keep is the directory of the node's files that survive a reboot. Files of container images do not
// count.
func VolumeLoops(keep string) (map[string]string, error) {
	dir := filepath.Join(keep, "var/lib/trivet")
	return loopdev.OnFilesBelow(dir, filepath.Join(dir, "cri"))
}

// staleLoops are the devices that must not be there when these volumes are all that exist.
func staleLoops(devices map[string]string, volumes []string) []Leak {
	var out []Leak
	seen := map[string]bool{}
	for device, file := range devices {
		volume, isImage := strings.CutSuffix(filepath.Base(file), ".img")
		isGone := isImage && volume != "pool" && !slices.Contains(volumes, volume)
		if isGone || seen[file] {
			out = append(out, Leak{"loop device", device + " on " + file})
		}

		seen[file] = true
	}

	return out
}
