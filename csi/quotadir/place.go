package quotadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/trivet-node/trivet/csi/datadir"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/projectquota"
)

// place is where the directories of volumes, and of deleted ones, are.
type place struct {
	volumes, deleted string

	// mu guards held: there are volumes, or were. Nothing is made from then on: what is not there is not
	// mounted.
	mu   sync.Mutex
	held bool
}

// makeOnce makes the directories for the first volume.
func (p *place) makeOnce() error {
	if p.isHeld() {
		return nil
	}
	return p.prepare()
}

// prepare makes what is missing of the directories, and has them be as they are to be: root's alone, and in
// no project that the data directory may be in. Nothing could be moved from one that hands its project down
// into another.
func (p *place) prepare() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, dir := range []string{p.volumes, p.deleted} {
		if err := errors.Join(os.MkdirAll(dir, 0o700), datadir.Narrow(dir)); err != nil {
			return err
		}
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		err = errors.Join(projectquota.Put(f, 0), f.Close())
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	p.held = true
	return nil
}

func (p *place) isHeld() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// lack returns volume.ErrUnavailable if there are volumes and one of the directories is not there, as while
// its disk is not mounted. An empty one in its place would say that the volumes are gone.
func (p *place) lack() error {
	if !p.isHeld() {
		return nil
	}
	for _, dir := range []string{p.volumes, p.deleted} {
		if _, err := os.Lstat(dir); err != nil {
			return fmt.Errorf("%w: the directory of volumes: %v; mount its disk, or make an empty one if"+
				" what was in it is lost for good", volume.ErrUnavailable, err)
		}
	}
	return nil
}

// Inspect lists the volumes once, see volume.Inspector. If their directory is not there its disk may not be
// mounted, and nothing is lost.
func (p *place) Inspect() (volume.Inspection, error) {
	names, err := namesIn(p.volumes)
	if errors.Is(err, fs.ErrNotExist) {
		gone := fmt.Errorf("%w: %w", volume.ErrDamaged, err)
		return volume.Inspection{Of: func(volume.Spec) error { return gone }}, nil
	}
	if err != nil {
		return volume.Inspection{}, err
	}

	for i, name := range names {
		names[i] = IDOf(name)
	}
	slices.Sort(names)
	return volume.Inspection{Of: func(s volume.Spec) error {
		if _, there := slices.BinarySearch(names, s.ID); !there {
			return fmt.Errorf("%w: its directory is not in %s", volume.ErrLost, p.volumes)
		}
		return nil
	}}, nil
}

// findAgain finds the number of a volume whose directory was not there when the driver was started. The
// caller has locked the volume.
func (p *place) findAgain(n *numbers, id string) (found bool) {
	if _, known := n.of(id); known {
		return false
	}
	names, _ := namesIn(p.volumes)
	for _, name := range names {
		if named, project, ok := Parse(name); ok && named == id {
			n.found(id, project, true)
			found = true
		}
	}
	return found
}
