package container

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/trivet-node/trivet/cri/image"
)

// maxVolumes bounds what an image's author may have mounted.
const maxVolumes = 256

// imageVolumes makes the volumes that the image declares (VOLUME), where nothing else is mounted: what the
// pod mounts at such a path, or above it, is meant to hold what is written there.
func (c *Containers) imageVolumes(r *Record, img image.Image, files []specs.Mount) ([]specs.Mount, error) {
	declared := img.Config.Config.Volumes
	if len(declared) > maxVolumes {
		return nil, fmt.Errorf("image %s: %d volumes are more than %d", img.ID, len(declared), maxVolumes)
	}

	taken := []string{"/proc", "/sys", "/dev"}
	for _, f := range files {
		taken = append(taken, f.Destination)
	}

	for _, m := range r.config.Mounts {
		taken = append(taken, path.Join("/", m.ContainerPath))
	}

	var volumes []specs.Mount
	made := map[string]bool{}
	for i, name := range slices.Sorted(maps.Keys(declared)) {
		if isTaken(path.Join("/", name), taken) {
			continue
		}

		source, target, err := c.cfg.Rootfs.Volume(r.ID, i, name)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", img.ID, err)
		}

		// a symbolic link led there
		if made[target] || isTaken(target, taken) {
			continue
		}

		made[target] = true
		volumes = append(volumes, specs.Mount{
			Destination: target,
			Type:        "bind",
			Source:      source,
			Options:     []string{"rbind", "rprivate", "rw"},
		})
	}

	return volumes, nil
}

// isTaken reports whether a path is the root, or one of taken or below one.
func isTaken(p string, taken []string) bool {
	return p == "/" || slices.ContainsFunc(taken, func(t string) bool {
		return p == t || strings.HasPrefix(p, strings.TrimSuffix(t, "/")+"/")
	})
}
