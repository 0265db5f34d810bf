package nodestatus

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/threshold"
)

// pressures remember when each pressure was last seen. It is held for a while after that, so that a node at
// the edge does not change with each look.
type pressures struct {
	hold time.Duration

	// mu guards seen.
	mu   sync.Mutex
	seen map[v1.NodeConditionType]time.Time
}

func newPressures(hold time.Duration) *pressures {
	return &pressures{hold: hold, seen: map[v1.NodeConditionType]time.Time{}}
}

// update takes what a look has found and reports whether the node counts as under that pressure.
func (p *pressures) update(kind v1.NodeConditionType, low bool, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	if low {
		p.seen[kind] = now
		return true
	}

	last, ever := p.seen[kind]
	if !ever || now.Sub(last) >= p.hold {
		delete(p.seen, kind)
		return false
	}

	return true
}

// all returns the pressures that the node is under, sorted.
func (p *pressures) all() []v1.NodeConditionType {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.seen))
}

// inspector looks at the machine for pressures.
type inspector struct {
	machine    machine.Machine
	runtime    Runtime
	rootDir    string
	thresholds threshold.Set
	pressures  *pressures

	// imageDir is where the runtime keeps images, "" as long as it has not said so. The goroutine of Run
	// alone uses it.
	imageDir string
}

// inspect looks at the machine, and judges what the runtime has said of itself.
func (i *inspector) inspect(ctx context.Context, info runtime.Info, runtimeErr error) []finding {
	now := time.Now()
	look := func(kind v1.NodeConditionType, low bool) finding {
		return pressure(kind, i.pressures.update(kind, low, now))
	}
	return []finding{
		look(v1.NodeMemoryPressure, i.memoryLow()),
		look(v1.NodeDiskPressure, i.diskLow(ctx)),
		look(v1.NodePIDPressure, i.tasksLow()),
		readiness(info, runtimeErr),
	}
}

func (i *inspector) memoryLow() bool {
	m, err := i.machine.Memory()
	return err == nil && i.thresholds.Crossed(threshold.Memory, m.Available, m.Total)
}

// diskLow looks at the file systems of pods and of images. They may be one: then the higher threshold counts.
func (i *inspector) diskLow(ctx context.Context) bool {
	if i.fileSystemLow(i.rootDir, threshold.NodeFS, threshold.NodeFSInodes) {
		return true
	}

	// A runtime that does not answer is asked again at the next look.
	if i.imageDir == "" {
		i.imageDir, _ = i.runtime.ImageDir(ctx)
	}

	return i.imageDir != "" && i.fileSystemLow(i.imageDir, threshold.ImageFS, threshold.ImageFSInodes)
}

func (i *inspector) fileSystemLow(dir, space, inodes string) bool {
	disk, err := machine.FileSystemOf(dir)
	if err != nil {
		return false
	}
	return i.thresholds.Crossed(space, disk.Free, disk.Size) ||
		disk.Inodes > 0 && i.thresholds.Crossed(inodes, disk.InodesFree, disk.Inodes)
}

func (i *inspector) tasksLow() bool {
	now, limit, err := i.machine.Tasks()
	return err == nil && i.thresholds.Crossed(threshold.PIDs, limit-now, limit)
}
