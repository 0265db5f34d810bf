// Package inventory remembers which volumes of pods are mounted. It looks at nothing itself.
package inventory

import (
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Inventory is the volumes that are mounted, pod by pod. The zero value has none. It is safe for concurrent
// use.
type Inventory struct {
	// mu guards pods, whose volumes are by name.
	mu   sync.Mutex
	pods map[types.UID]map[string]*v1.Volume
}

// Add enters those of a pod's volumes that are mounted. What was mounted before stays so.
func (i *Inventory) Add(pod *v1.Pod, isMounted func(name string) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pods == nil {
		i.pods = map[types.UID]map[string]*v1.Volume{}
	}

	volumes := i.pods[pod.UID]
	if volumes == nil {
		volumes = map[string]*v1.Volume{}
		i.pods[pod.UID] = volumes
	}
	for n := range pod.Spec.Volumes {
		if volume := &pod.Spec.Volumes[n]; isMounted(volume.Name) {
			volumes[volume.Name] = volume
		}
	}
}

// Drop takes out those of a pod.
func (i *Inventory) Drop(pod types.UID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.pods, pod)
}

// All returns the volumes of all pods. They are shared and must not be changed.
func (i *Inventory) All() []*v1.Volume {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []*v1.Volume
	for _, volumes := range i.pods {
		for _, volume := range volumes {
			out = append(out, volume)
		}
	}
	return out
}
