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
	"github.com/trivet-node/trivet/node/podlog"
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

// logs measures the logs of all instances of a container.
func (m *Meter) logs(pod *v1.Pod, container string) Usage {
	return files(filepath.Join(podlog.Dir(m.cfg.Logs.Root, pod), container))
}

// rest measures what belongs to a pod as a whole.
func (m *Meter) rest(pod *v1.Pod) Usage {
	out := files(podlog.Dir(m.cfg.Logs.Root, pod))
	out.add(filepath.Join(m.cfg.Root, "pods", string(pod.UID), "etc-hosts"))
	return out
}

// maxFiles bounds the files of a directory of logs that are looked at. The runtime and the agent, which make
// them, keep a few.
const maxFiles = 1 << 12

// files adds up the files in a directory, without those in directories below. As with kubelet the directory
// itself does not count.
func files(dir string) Usage {
	out := Usage{Time: time.Now()}
	f, err := os.Open(dir)
	if err != nil {
		return out
	}
	defer f.Close()

	// An error is that of an empty directory, or of one that is being removed.
	names, _ := f.Readdirnames(maxFiles)
	for _, name := range names {
		out.add(filepath.Join(dir, name))
	}

	return out
}

// add counts a file. What is gone, or is a directory, takes nothing.
func (u *Usage) add(path string) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return
	}
	u.Bytes += uint64(st.Blocks) * 512
	u.Inodes++
}
