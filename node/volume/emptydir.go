package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/internal/fsgroup"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/node/podspec"
)

const emptyDirPlugin = "kubernetes.io~empty-dir"

// emptyDir makes a directory on the node's disk, or mounts a tmpfs or hugetlbfs, and returns its path. It
// lives as long as the pod. Once it is made its content, mode and owner are the containers', and it is not
// changed again: kubelet's file "ready" says so.
func (m *Mounter) emptyDir(ctx context.Context, pod *v1.Pod, vol *v1.Volume) (string, error) {
	dir := m.dirs.volume(pod.UID, emptyDirPlugin, vol.Name)
	ready := m.dirs.ready(pod.UID, emptyDirPlugin, vol.Name)
	inMemory := vol.EmptyDir.Medium != v1.StorageMediumDefault
	if done, err := handedOver(dir, ready, inMemory); done || err != nil {
		return dir, err
	}

	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, err)
	}
	if err := m.mountMedium(dir, pod, vol.EmptyDir); err != nil {
		return "", err
	}
	if err := openToAll(dir); err != nil {
		return "", err
	}

	if gid := podspec.FSGroup(pod); gid != nil {
		err := fsgroup.Apply(ctx, dir, *gid, false, podspec.FSGroupOnRootMismatch(pod))
		if err != nil {
			return "", err
		}
	}

	// From here on the directory is the containers'.
	if err := os.MkdirAll(filepath.Dir(ready), 0o750); err != nil {
		return "", fmt.Errorf("make %s: %w", filepath.Dir(ready), err)
	}
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		return "", fmt.Errorf("note that %s is made: %w", dir, err)
	}

	return dir, nil
}

// mountMedium mounts the volume's medium on the directory. The node's disk needs no mount.
func (m *Mounter) mountMedium(dir string, pod *v1.Pod, src *v1.EmptyDirVolumeSource) error {
	switch {
	case src.Medium == v1.StorageMediumDefault:
		m.assignProject(dir)
		return nil
	case src.Medium == v1.StorageMediumMemory:
		return ensureTmpfs(dir, "1777", m.memorySize(pod, src.SizeLimit))
	case strings.HasPrefix(string(src.Medium), string(v1.StorageMediumHugePages)):
		return ensureHugetlbfs(dir, pod, src.Medium)
	}
	return fmt.Errorf("emptyDir medium %q is unknown", src.Medium)
}

// assignProject has the kernel count what is written below a directory of the disk, where the file system
// can. Without, the agent does.
func (m *Mounter) assignProject(dir string) {
	err := projectquota.Assign(dir)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		m.cfg.Log.Warn("a volume has no project quota and is measured by its files", "err", err)
	}
}

// handedOver reports whether the directory was handed to the containers and, if it is one in memory, no
// reboot has taken it since.
func handedOver(dir, ready string, inMemory bool) (bool, error) {
	for _, path := range []string{ready, dir} {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		} else if err != nil {
			return false, fmt.Errorf("stat %s: %w", path, err)
		}
	}

	if inMemory {
		return mount.Mounted(dir)
	}

	return true, nil
}

// openToAll lets all containers of the pod write, whatever their users and the agent's umask are. A sticky
// bit stays.
func openToAll(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("stat %s: %w", dir, err)
	}
	if info.Mode().Perm() == 0o777 {
		return nil
	}

	if err := os.Chmod(dir, 0o777); err != nil {
		return fmt.Errorf("open %s for all: %w", dir, err)
	}

	return nil
}

// ensureTmpfs mounts a tmpfs on the directory unless it is mounted. Its root has the mode, in octal; it holds
// at most size bytes, or with 0 the kernel's default, half of the memory.
func ensureTmpfs(dir, mode string, size int64) error {
	mounted, err := mount.Mounted(dir)
	if err != nil || mounted {
		return err
	}

	options := "mode=" + mode
	if size > 0 {
		options += ",size=" + strconv.FormatInt(size, 10)
	}

	return mount.Tmpfs(dir, options)
}

// memorySize is the size of a volume in memory, in bytes: the smallest of the volume's limit, what the pod
// may use, and what all pods of the node together may use. It is 0 if none of them is limited.
func (m *Mounter) memorySize(pod *v1.Pod, limit *resource.Quantity) int64 {
	limits := []int64{m.cfg.Node.Allocatable.Memory().Value(), podMemory(pod)}
	if limit != nil {
		limits = append(limits, limit.Value())
	}

	var size int64
	for _, l := range limits {
		if l > 0 && (size == 0 || l < size) {
			size = l
		}
	}

	return size
}

// podMemory is the memory limit of the pod in bytes, 0 if it has none: its own, or what its containers may
// use together. An init container ends before the next one starts, but a sidecar stays.
func podMemory(pod *v1.Pod) int64 {
	if pod.Spec.Resources != nil {
		if q, ok := pod.Spec.Resources.Limits[v1.ResourceMemory]; ok {
			return q.Value()
		}
	}

	var sum int64
	for _, c := range pod.Spec.Containers {
		q, ok := c.Resources.Limits[v1.ResourceMemory]
		if !ok || q.IsZero() {
			return 0
		}

		sum += q.Value()
	}

	for _, c := range pod.Spec.InitContainers {
		q, ok := c.Resources.Limits[v1.ResourceMemory]
		switch {
		case !ok || q.IsZero():
			return 0
		case podspec.Sidecar(&c):
			sum += q.Value()
		default:
			sum = max(sum, q.Value())
		}
	}

	return sum
}

// ensureHugetlbfs mounts a hugetlbfs on the directory unless it is mounted.
func ensureHugetlbfs(dir string, pod *v1.Pod, medium v1.StorageMedium) error {
	mounted, err := mount.Mounted(dir)
	if err != nil || mounted {
		return err
	}

	size, err := pageSize(pod, medium)
	if err != nil {
		return err
	}

	options := "pagesize=" + strconv.FormatInt(size.Value()>>20, 10) + "M"
	if err := unix.Mount("hugetlbfs", dir, "hugetlbfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount hugetlbfs (%s) on %s: %w", options, dir, err)
	}

	return nil
}

// pageSize is the size of huge pages that the medium names, as HugePages-2Mi does. The medium HugePages
// stands for the one size that the pod's containers request.
func pageSize(pod *v1.Pod, medium v1.StorageMedium) (resource.Quantity, error) {
	if s, ok := strings.CutPrefix(string(medium), string(v1.StorageMediumHugePagesPrefix)); ok {
		return resource.ParseQuantity(s)
	}

	var sizes []string
	for c := range podspec.Regular(pod) {
		for name := range c.Resources.Requests {
			size, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix)
			if ok && !slices.Contains(sizes, size) {
				sizes = append(sizes, size)
			}
		}
	}

	if len(sizes) != 1 {
		return resource.Quantity{}, fmt.Errorf("emptyDir medium HugePages needs exactly one huge page "+
			"size requested by the pod, found %d", len(sizes))
	}

	return resource.ParseQuantity(sizes[0])
}
