package volume

import (
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// inventory is the volumes that are mounted, pod by pod. It is safe for concurrent use.
type inventory struct {
	// mu guards pods, whose volumes are by name.
	mu   sync.Mutex
	pods map[types.UID]map[string]*v1.Volume
}

// add enters those of a pod's volumes that are mounted. What was mounted before stays so.
func (i *inventory) add(pod *v1.Pod, mounted map[string]Mounted) {
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
		if volume := &pod.Spec.Volumes[n]; isIn(mounted, volume.Name) {
			volumes[volume.Name] = volume
		}
	}
}

func isIn(mounted map[string]Mounted, name string) bool {
	_, ok := mounted[name]
	return ok
}

// drop takes out those of a pod.
func (i *inventory) drop(pod types.UID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.pods, pod)
}

// Present returns the volumes of all pods that this agent has mounted, or has found mounted, and not yet
// unmounted. They are shared and must not be changed.
func (m *Mounter) Present() []*v1.Volume {
	m.present.mu.Lock()
	defer m.present.mu.Unlock()
	var out []*v1.Volume
	for _, volumes := range m.present.pods {
		for _, volume := range volumes {
			out = append(out, volume)
		}
	}
	return out
}
