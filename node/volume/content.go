package volume

import (
	"context"
	"fmt"
	"io/fs"
	"os"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/atomicdir"
	"github.com/trivet-node/trivet/node/podspec"
)

// Directory names of kubelet's plugins.
const (
	configMapPlugin = "kubernetes.io~configmap"
	secretPlugin    = "kubernetes.io~secret"
	downwardPlugin  = "kubernetes.io~downward-api"
	projectedPlugin = "kubernetes.io~projected"
)

// content writes a volume that is made of API objects, and returns its directory. Volumes that can hold
// secrets are in memory, never on disk.
func (m *Mounter) content(ctx context.Context, pod *v1.Pod, vol *v1.Volume) (string, error) {
	plugin := contentPlugin(vol)
	dir := m.dirs.volume(pod.UID, plugin, vol.Name)
	if m.cfg.Certificates != nil {
		m.cfg.Certificates.Adopt(pod, vol, dir, m.dirs.renewals(pod.UID, vol.Name))
	}

	files, err := m.projector.Files(ctx, pod, vol)
	if err != nil {
		return "", err
	}

	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make %s: %w", dir, err)
	}

	if plugin != configMapPlugin {
		if err := ensureTmpfs(dir, "0755", m.memorySize(pod, nil)); err != nil {
			return "", err
		}
	}

	owner := atomicdir.Owner{GID: podspec.FSGroup(pod)}
	if err := ownRoot(dir, owner.GID); err != nil {
		return "", err
	}

	_, err = atomicdir.Write(dir, files, owner)
	return dir, err
}

// contentPlugin is kubelet's directory for the volume's type.
func contentPlugin(vol *v1.Volume) string {
	switch {
	case vol.ConfigMap != nil:
		return configMapPlugin
	case vol.Secret != nil:
		return secretPlugin
	case vol.DownwardAPI != nil:
		return downwardPlugin
	default:
		return projectedPlugin
	}
}

// ownRoot gives the volume's root to the fsGroup, if there is one, and opens it to all: who may reach it is
// decided by the pod's directory above, which is closed.
func ownRoot(dir string, gid *int64) error {
	mode := fs.FileMode(0o777)
	if gid != nil {
		if err := os.Lchown(dir, 0, int(*gid)); err != nil {
			return fmt.Errorf("give volume to group: %w", err)
		}

		mode |= fs.ModeSetgid
	}

	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("open volume: %w", err)
	}

	return nil
}
