package bundle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// MountIDs returns the IDs under which the images that a container mounts are mounted, to be released with
// the container's own ID.
func MountIDs(id string, container *runtimeapi.ContainerConfig) []string {
	var ids []string
	for i, m := range container.GetMounts() {
		if m.GetImage().GetImage() != "" {
			ids = append(ids, mountID(id, i))
		}
	}
	return ids
}

func mountID(id string, number int) string { return fmt.Sprintf("%s-volume%d", id, number) }

// OwnerOf returns the container that an ID of Maker.IDs is of: the container's own, or one of MountIDs.
func OwnerOf(id string) string {
	owner, _, _ := strings.Cut(id, "-")
	return owner
}

// mountImages mounts the images that the container mounts as volumes. It returns their directories and their
// IDs, both by the path in the container.
func (m *Maker) mountImages(ctx context.Context, r Request) (dirs, ids map[string]string, err error) {
	dirs = map[string]string{}
	for i, mount := range r.Container.Mounts {
		name := mount.GetImage().GetImage()
		if name == "" {
			continue
		}

		img, err := m.cfg.Images.Get(name)
		if err != nil {
			return nil, nil, fmt.Errorf("image volume %s: %w", mount.ContainerPath, err)
		}

		dir, err := m.cfg.Rootfs.PrepareReadOnly(ctx, mountID(r.ID, i), img, r.Users)
		if err != nil {
			return nil, nil, fmt.Errorf("image volume %s: %w", mount.ContainerPath, err)
		}

		if dir, err = inside(dir, mount.ImageSubPath); err != nil {
			const format = "image volume %s: sub-path %q: %w"
			return nil, nil, fmt.Errorf(format, mount.ContainerPath, mount.ImageSubPath, err)
		}

		if ids == nil {
			ids = map[string]string{}
		}

		ids[mount.ContainerPath] = img.ID
		dirs[mount.ContainerPath] = dir
	}

	return dirs, ids, nil
}

// inside returns the path of a sub-path of an image, whose symbolic links cannot lead out. The image is
// read-only, so the path stays that of the same file.
func inside(root, sub string) (string, error) {
	if sub == "" {
		return root, nil
	}

	f, err := pathrs.OpenInRoot(root, sub)
	if err != nil {
		return "", err
	}
	defer f.Close()

	found, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err == nil && !strings.HasPrefix(found, root) {
		err = errors.New("leads out of the image")
	}

	return found, err
}

// maxVolumes bounds how many volumes the author of an image may have mounted.
const maxVolumes = 256

// imageVolumes makes the volumes that the image declares (VOLUME), where nothing else is mounted: what the
// pod mounts at such a path, or above it, is meant to hold what is written there.
func (m *Maker) imageVolumes(r Request) ([]specs.Mount, error) {
	declared := r.Image.Config.Config.Volumes
	if len(declared) > maxVolumes {
		const format = "image %s: %d volumes are more than %d"
		return nil, fmt.Errorf(format, r.Image.ID, len(declared), maxVolumes)
	}

	taken := []string{"/proc", "/sys", "/dev"}
	for _, f := range r.Files {
		taken = append(taken, f.Destination)
	}

	for _, mount := range r.Container.Mounts {
		taken = append(taken, path.Join("/", mount.ContainerPath))
	}

	var volumes []specs.Mount
	mounted := map[string]bool{}
	for i, name := range slices.Sorted(maps.Keys(declared)) {
		if isTaken(path.Join("/", name), taken) {
			continue
		}

		source, target, err := m.cfg.Rootfs.Volume(r.ID, i, name)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", r.Image.ID, err)
		}

		// A symbolic link may have led there.
		if mounted[target] || isTaken(target, taken) {
			continue
		}

		mounted[target] = true
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
