package volume

import (
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
)

// The layout below the root directory is kubelet's, so that either agent can clean up after the other.

func (m *Mounter) podDir(uid types.UID) string { return filepath.Join(m.cfg.Root, "pods", string(uid)) }

func (m *Mounter) volumesDir(uid types.UID) string { return filepath.Join(m.podDir(uid), "volumes") }

func (m *Mounter) volumeDir(uid types.UID, plugin, name string) string {
	return filepath.Join(m.volumesDir(uid), plugin, name)
}

func (m *Mounter) subpathsDir(uid types.UID) string {
	return filepath.Join(m.podDir(uid), "volume-subpaths")
}

// readyFile says that an emptyDir was made and handed to the pod.
func (m *Mounter) readyFile(uid types.UID, plugin, name string) string {
	return filepath.Join(m.podDir(uid), "plugins", plugin, name, "ready")
}
