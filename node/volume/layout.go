package volume

import (
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
)

// layout is where the volumes of pods are below the root directory. It is kubelet's, so that kubelet and this
// agent can each clean up what the other has left.
type layout struct{ root string }

func (l layout) pods() string { return filepath.Join(l.root, "pods") }

func (l layout) pod(uid types.UID) string { return filepath.Join(l.pods(), string(uid)) }

func (l layout) volumes(uid types.UID) string { return filepath.Join(l.pod(uid), "volumes") }

func (l layout) volume(uid types.UID, plugin, name string) string {
	return filepath.Join(l.volumes(uid), plugin, name)
}

func (l layout) subpaths(uid types.UID) string { return filepath.Join(l.pod(uid), "volume-subpaths") }

// renewals is the file that says when the certificates that a projected volume shows are to be renewed.
func (l layout) renewals(uid types.UID, name string) string {
	return filepath.Join(l.pod(uid), "plugins", projectedPlugin, name, "renewals.json")
}

// ready is the file that says that an emptyDir was made and handed to the pod.
func (l layout) ready(uid types.UID, plugin, name string) string {
	return filepath.Join(l.pod(uid), "plugins", plugin, name, "ready")
}
