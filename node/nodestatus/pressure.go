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

	mu   sync.Mutex // guards seen
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

// inspect looks at the machine, and judges what the runtime has said of itself.
func (r *Reporter) inspect(ctx context.Context, info runtime.Info, runtimeErr error) []finding {
	now := time.Now()
	look := func(kind v1.NodeConditionType, low bool) finding {
		return pressure(kind, r.pressures.update(kind, low, now))
	}
	return []finding{
		look(v1.NodeMemoryPressure, r.memoryLow()),
		look(v1.NodeDiskPressure, r.diskLow(ctx)),
		look(v1.NodePIDPressure, r.tasksLow()),
		readiness(info, runtimeErr),
	}
}

func (r *Reporter) memoryLow() bool {
	m, err := r.machine.Memory()
	return err == nil && r.cfg.Thresholds.Crossed(threshold.Memory, m.Available, m.Total)
}

// diskLow looks at the file systems of pods and of images. They may be one: then the higher threshold counts.
func (r *Reporter) diskLow(ctx context.Context) bool {
	if r.fileSystemLow(r.cfg.RootDir, threshold.NodeFS, threshold.NodeFSInodes) {
		return true
	}
	if r.imageDir == "" {
		// asked again at the next look
		r.imageDir, _ = r.runtime.ImageDir(ctx)
	}
	return r.imageDir != "" && r.fileSystemLow(r.imageDir, threshold.ImageFS, threshold.ImageFSInodes)
}

func (r *Reporter) fileSystemLow(dir, space, inodes string) bool {
	disk, err := machine.FileSystemOf(dir)
	if err != nil {
		return false
	}
	return r.cfg.Thresholds.Crossed(space, disk.Free, disk.Size) ||
		disk.Inodes > 0 && r.cfg.Thresholds.Crossed(inodes, disk.InodesFree, disk.Inodes)
}

func (r *Reporter) tasksLow() bool {
	now, limit, err := r.machine.Tasks()
	return err == nil && r.cfg.Thresholds.Crossed(threshold.PIDs, limit-now, limit)
}
