package podcgroup

import (
	"time"

	v1 "k8s.io/api/core/v1"
)

// CPUTime returns how much CPU time the containers of a pod have used, commands that were executed in them
// included. It is an error that the pod has no group (yet).
func (t *Tree) CPUTime(pod *v1.Pod) (time.Duration, error) {
	return t.cfg.Host.CPUTime(t.group(pod))
}
