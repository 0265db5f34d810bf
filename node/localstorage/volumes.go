package localstorage

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/diskusage"
	"github.com/trivet-node/trivet/internal/mount"
)

// Directories of kubelet's volume plugins.
const (
	emptyDirPlugin  = "kubernetes.io~empty-dir"
	configMapPlugin = "kubernetes.io~configmap"
)

// volumes measures the volumes that kubelet counts to a pod, and those in memory, which it limits as well.
func (m *Meter) volumes(ctx context.Context, pod *v1.Pod, activity int64) map[string]Volume {
	out := map[string]Volume{}
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		base := filepath.Join(m.cfg.Root, "pods", string(pod.UID), "volumes")
		switch {
		case vol.ConfigMap != nil:
			// The agent writes it, and replaces all of it at once.
			dir := filepath.Join(base, configMapPlugin, vol.Name)
			out[vol.Name] = Volume{Usage: m.tree(ctx, pod, vol.Name, dir, changed(dir))}

		case vol.EmptyDir == nil:

		case vol.EmptyDir.Medium == v1.StorageMediumMemory:
			dir := filepath.Join(base, emptyDirPlugin, vol.Name)
			out[vol.Name] = Volume{Usage: memory(dir), Memory: true}

		default:
			dir := filepath.Join(base, emptyDirPlugin, vol.Name)
			out[vol.Name] = Volume{
				Usage:  m.tree(ctx, pod, vol.Name, dir, activity),
				Memory: vol.EmptyDir.Medium != v1.StorageMediumDefault,
			}
		}
	}

	return out
}

// tree measures a directory.
func (m *Meter) tree(ctx context.Context, pod *v1.Pod, name, dir string, activity int64) Usage {
	f := m.trees.Measure(ctx, treeName(pod.UID, name), diskusage.Tree{
		Dirs:     []string{dir},
		Activity: activity,
		Project:  dir,
	})
	return Usage{
		Bytes:   f.Bytes,
		Inodes:  f.Inodes,
		Time:    f.Time,
		AtLeast: f.AtLeast,
	}
}

// changed is when a directory was changed last, as an activity.
func changed(dir string) int64 {
	info, err := os.Lstat(dir)
	if err != nil {
		return diskusage.Unknown
	}
	return info.ModTime().UnixNano()
}

// memory measures a tmpfs. Nothing is known of one that is not mounted (yet).
func memory(dir string) Usage {
	if mounted, err := mount.Mounted(dir); err != nil || !mounted {
		return Usage{}
	}

	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Usage{}
	}

	return Usage{
		Bytes:  (st.Blocks - st.Bfree) * uint64(st.Bsize),
		Inodes: st.Files - st.Ffree,
		Time:   time.Now(),
	}
}
