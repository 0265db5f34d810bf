package eviction

import (
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/threshold"
)

// Layout is which of the node's file systems are apart.
type Layout struct {
	// Images means that images are not all on the file system of kubelet's directory: they have one of their
	// own, with the writable layers of containers or without.
	Images bool

	// Split means that the writable layers of containers are not on the file system of the images.
	Split bool
}

// containerSource are the signals from which those of the container file system are taken: it is one of the
// other two.
func (l Layout) containerSource() (space, inodes string) {
	if l.Images && !l.Split {
		return threshold.ImageFS, threshold.ImageFSInodes
	}
	return threshold.NodeFS, threshold.NodeFSInodes
}

// thresholds returns the thresholds as they apply to the layout. Those of the container file system are not
// the administrator's to set: they are those of the file system that it is.
func (l Layout) thresholds(all []threshold.Threshold) []threshold.Threshold {
	space, inodes := l.containerSource()
	var out, derived []threshold.Threshold
	for _, t := range all {
		if t.Signal == threshold.ContainerFS || t.Signal == threshold.ContainerFSInodes {
			continue
		}

		out = append(out, t)
		switch t.Signal {
		case space:
			t.Signal = threshold.ContainerFS
			derived = append(derived, t)
		case inodes:
			t.Signal = threshold.ContainerFSInodes
			derived = append(derived, t)
		}
	}

	return append(out, derived...)
}

// part is a part of what a pod has on disk.
type part int

// The parts: writable layers, logs, and volumes that are the node's own.
const (
	layers part = iota
	logs
	volumes
)

// parts are those of a pod that are on the file system of a signal.
func (l Layout) parts(signal string) []part {
	onImages := signal == threshold.ImageFS || signal == threshold.ImageFSInodes
	onContainers := signal == threshold.ContainerFS || signal == threshold.ContainerFSInodes
	switch {
	case !l.Images:
		return []part{layers, logs, volumes}
	case l.Split && onImages:
		// Nothing of a pod is there but its images, which it does not own.
		return nil
	case l.Split:
		return []part{layers, logs, volumes}
	case onImages || onContainers:
		return []part{layers}
	}
	return []part{logs, volumes}
}

// reclaim is what can be removed from the file system of a signal before a pod has to go. Dead containers
// have logs on that of the node: those of a pod that was evicted for them must not be a reason to evict
// another one, as they are with kubelet where images are apart.
func (l Layout) reclaim(signal string) (containers, images bool) {
	if !slices.Contains(ofDisk, signal) {
		return false, false
	}

	onImages := signal == threshold.ImageFS || signal == threshold.ImageFSInodes
	onNode := signal == threshold.NodeFS || signal == threshold.NodeFSInodes
	switch {
	case !l.Images:
		return true, true
	case l.Split:
		return !onImages, onImages
	}
	return true, !onNode
}

// ofDisk are the signals of file systems.
var ofDisk = []string{
	threshold.NodeFS,
	threshold.NodeFSInodes,
	threshold.ImageFS,
	threshold.ImageFSInodes,
	threshold.ContainerFS,
	threshold.ContainerFSInodes,
}

// The resources that are not those of Kubernetes, by kubelet's names.
const (
	inodes    v1.ResourceName = "inodes"
	processes v1.ResourceName = "pids"
)

// resources are what signals are about, as messages name them.
var resources = map[string]v1.ResourceName{
	threshold.Memory:            v1.ResourceMemory,
	threshold.AllocatableMemory: v1.ResourceMemory,
	threshold.NodeFS:            v1.ResourceEphemeralStorage,
	threshold.NodeFSInodes:      inodes,
	threshold.ImageFS:           v1.ResourceEphemeralStorage,
	threshold.ImageFSInodes:     inodes,
	threshold.ContainerFS:       v1.ResourceEphemeralStorage,
	threshold.ContainerFSInodes: inodes,
	threshold.PIDs:              processes,
}
