// Package inventory remembers which volumes of pods are mounted, and by which kind of plugin. It looks at
// nothing itself.
package inventory

import (
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Inventory is the volumes of pods that were to be mounted, pod by pod. The zero value has none. It is safe
// for concurrent use.
type Inventory struct {
	// mu guards pods, whose volumes are by name.
	mu   sync.Mutex
	pods map[types.UID]map[string]entry
}

// entry is one volume.
type entry struct {
	plugin  string
	mounted bool
}

// Enter says that a volume of a pod was mounted, or could not be. What was mounted before stays so.
func (i *Inventory) Enter(pod types.UID, volume, plugin string, mounted bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pods == nil {
		i.pods = map[types.UID]map[string]entry{}
	}
	if i.pods[pod] == nil {
		i.pods[pod] = map[string]entry{}
	}

	mounted = mounted || i.pods[pod][volume].mounted
	i.pods[pod][volume] = entry{plugin, mounted}
}

// Drop takes out those of a pod.
func (i *Inventory) Drop(pod types.UID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.pods, pod)
}

// Mounted returns how many volumes are mounted by each plugin.
func (i *Inventory) Mounted() map[string]int {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := map[string]int{}
	for _, volumes := range i.pods {
		for _, volume := range volumes {
			if volume.mounted {
				out[volume.plugin]++
			}
		}
	}
	return out
}

// PluginOf returns the plugin of a pod's volume. Which one mounts a claim's is known when the claim has been
// read.
func (i *Inventory) PluginOf(pod types.UID, v *v1.Volume) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if known, ok := i.pods[pod][v.Name]; ok {
		return known.plugin
	}
	return Plugin(v, nil)
}
