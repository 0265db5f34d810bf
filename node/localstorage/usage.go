// Package localstorage knows what pods have written to the node's own disk and keeps them to what they may
// (local storage capacity isolation, KEP-361): the sizes of emptyDir volumes and the limits of
// ephemeral-storage of containers and pods. Figures are counted as kubelet counts them, but a tree that
// cannot have changed is not looked at again. What happens to a pod that exceeds a limit is the Evictor's.
package localstorage

import "time"

// Usage is what something takes of the disk, or of memory.
type Usage struct {
	Bytes  uint64
	Inodes uint64

	// Time is when it was so. It is zero if nothing is known.
	Time time.Time

	// AtLeast says that there is more: a large tree is being measured, or a part of it cannot be.
	AtLeast bool
}

// plus is the sum of both, as old as the older one.
func (u Usage) plus(other Usage) Usage {
	sum := Usage{
		Bytes:   u.Bytes + other.Bytes,
		Inodes:  u.Inodes + other.Inodes,
		Time:    u.Time,
		AtLeast: u.AtLeast || other.AtLeast,
	}
	if u.Time.IsZero() || !other.Time.IsZero() && other.Time.Before(u.Time) {
		sum.Time = other.Time
	}
	return sum
}

// Pod is what a pod takes.
type Pod struct {
	// Containers are the containers that run, by name.
	Containers map[string]Container

	// Volumes are the volumes that the node makes for the pod alone, by name: emptyDir and configMap.
	Volumes map[string]Volume

	// Rest is what belongs to the pod as a whole: its /etc/hosts, and logs that are not of a container.
	Rest Usage
}

// Container is what a container takes.
type Container struct {
	// Layer is what was written to the root file system.
	Layer Usage

	// Logs are those of all instances of the container, rotated ones included.
	Logs Usage
}

// Volume is what a volume takes.
type Volume struct {
	Usage

	// Memory says that it is in memory: it does not count to the pod's ephemeral storage.
	Memory bool
}

// Total is the pod's ephemeral storage, as its limit counts it.
func (p Pod) Total() Usage {
	total := p.Rest
	for _, c := range p.Containers {
		total = total.plus(c.Layer).plus(c.Logs)
	}
	for _, v := range p.Volumes {
		if !v.Memory {
			total = total.plus(v.Usage)
		}
	}
	return total
}
