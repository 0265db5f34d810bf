// Package publish puts volumes on the paths where pods find them. A volume is staged on one path of the node
// first (its file system is mounted there, or its device attached), and then published on one target for each
// pod; CSI spec, "Volume Lifecycle". Targets are bind mounts of the staging path, or of the device.
//
// What is staged and published where is recorded in a directory that a reboot empties. A record is written
// before the mount and removed after it, so that a killed process finds all its mounts again; what it says is
// compared with the kernel at each start.
package publish

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
)

// Volumes are the volumes of this node. It is a volume.Store.
type Volumes interface {
	Get(id string) (volume.Volume, error)
	Lock(ctx context.Context, id string) (unlock func(), err error)
	Acquire(ctx context.Context, id string) (v volume.Volume, unlock func(), err error)
	Hold(id, where string)
	Release(id string)
}

// Backend is what every backend can do with a volume in use. What it can do beside that it says by the
// interfaces BlockDevice, Grower, OwnDevice and Unlocker.
type Backend interface {
	// Mount returns a mount of the volume's root directory that is not attached to any path yet.
	Mount(volume.Spec, target.Options) (*target.Tree, error)

	// Usage returns how much of a volume with a file system is used. root is its open root directory.
	Usage(s volume.Spec, root *os.File) (Usage, error)
}

// BlockDevice is a Backend with raw block volumes.
type BlockDevice interface {
	// Device attaches the volume to a device, or finds it attached, and returns the open device.
	Device(volume.Spec) (*os.File, error)

	// Attached reports whether the volume has a device.
	Attached(id string) (bool, error)

	// Detach frees the device. A volume without one is success.
	Detach(id string) error
}

// Grower is a Backend with volumes that do not grow all by themselves while they are in use.
type Grower interface {
	// GrowsStaged reports whether a volume is one of those.
	GrowsStaged(volume.Spec) bool

	// GrowStaged finishes the growth of a volume in use. root is its open root directory, nil for raw block.
	GrowStaged(s volume.Spec, root *os.File) error
}

// Usage of a volume, in bytes and inodes. Inodes are zero where the file system has no fixed number of them.
type Usage struct {
	Total, Used, Available                   int64
	InodesTotal, InodesUsed, InodesAvailable int64
}

// Config of a Publisher.
type Config struct {
	Dir      string // of the records; best on a tmpfs
	Volumes  Volumes
	Targets  *target.Root       // the directory beneath which volumes may be staged and published
	Backends map[string]Backend // those that work on this node, by name
	Throttle Throttle           // nil: no volume can have limits
}

// Publisher puts volumes on paths. It is safe for concurrent use; operations on different volumes do not wait
// for each other.
type Publisher struct {
	volumes  Volumes
	targets  *target.Root
	backends map[string]Backend
	stagings *stagings

	// Limits of the volumes in use.
	Limits *Limits
}

// Report is what Open found.
type Report struct {
	Unreadable []durable.Unreadable // records that could not be read; set aside
	Unstaged   []string             // IDs of volumes that were in use before a reboot

	// Limited is why limits of volumes that are not in use any more could not be lifted, by ID. Their records
	// are kept for the next start.
	Limited map[string]error
}

// Open reads the records and compares them with what the kernel has mounted: after a reboot nothing is, after
// a kill -9 everything is. All volumes in use are held (volume.Store.Hold) when it returns.
//
// A device without a record is left alone: since the record is there for longer than the device, it was lost,
// and a pod may be using the device. The next Stage finds it, and deleting the volume detaches it.
func Open(cfg Config) (*Publisher, Report, error) {
	report := Report{Limited: map[string]error{}}
	p := &Publisher{
		volumes:  cfg.Volumes,
		targets:  cfg.Targets,
		backends: cfg.Backends,
	}

	stagings, recorded, unreadable, err := openStagings(cfg.Dir)
	if err != nil {
		return nil, report, err
	}

	p.stagings, report.Unreadable = stagings, unreadable
	p.Limits = newLimits(cfg, stagings)

	for id, st := range recorded {
		v, err := p.volumes.Get(id)
		if err == nil && p.isStaged(v, st) {
			p.stagings.keep(id, st.only(p.isMounted))
			p.hold(id, st)
			continue
		}

		report.Unstaged = append(report.Unstaged, id)
		if err := p.Limits.lift(st); err != nil {
			report.Limited[id] = err
			continue
		}
		if err := p.stagings.remove(id); err != nil {
			return nil, report, err
		}
	}

	return p, report, nil
}

func (p *Publisher) isStaged(v volume.Volume, st staging) bool {
	if v.Access != volume.Block {
		return p.isMounted(st.Path)
	}
	devices, ok := p.backends[v.Backend].(BlockDevice)
	if !ok {
		return false
	}
	attached, err := devices.Attached(v.ID)
	return attached && err == nil
}

func (p *Publisher) isMounted(path string) bool {
	point, err := p.targets.Point(path, false)
	if err != nil {
		return false
	}
	defer point.Close()
	state, err := point.State()
	return err == nil && state.Mounted
}

func (p *Publisher) hold(id string, st staging) { p.volumes.Hold(id, "staged on "+st.Path) }

// Use is how a pod wants a volume.
type Use struct {
	Access       volume.Access
	FSType       string   // "": whatever the volume has
	Options      []string // mount options
	Secret       string   // what the key of an encrypted volume follows from
	ReadOnly     bool
	SingleWriter bool // one target at most

	// Group is what the files of the volume belong to, unless it is read-only; nil: to whom they belong.
	Group *int64
}

// Check returns ErrInvalid if the volume cannot be used so.
func (u Use) Check(v volume.Volume) error {
	switch {
	case u.Access != v.Access:
		return fmt.Errorf("%w: volume %s is for %s access, not %s",
			volume.ErrInvalid, v.ID, v.Access, u.Access)
	case u.FSType != "" && u.FSType != v.FSType:
		return fmt.Errorf("%w: volume %s has file system %s, not %s",
			volume.ErrInvalid, v.ID, v.FSType, u.FSType)
	}
	return nil
}

// acquire locks a volume that can be used as wanted.
func (p *Publisher) acquire(ctx context.Context, id string, u Use) (volume.Volume, func(), error) {
	v, unlock, err := p.volumes.Acquire(ctx, id)
	if err != nil {
		return volume.Volume{}, nil, err
	}
	if err := u.Check(v); err != nil {
		unlock()
		return volume.Volume{}, nil, err
	}
	return v, unlock, nil
}

// device attaches a raw block volume, or finds it attached.
func (p *Publisher) device(v volume.Volume) (*os.File, error) {
	devices, ok := p.backends[v.Backend].(BlockDevice)
	if !ok {
		return nil, fmt.Errorf("%w: backend %s has no raw block volumes", volume.ErrInvalid, v.Backend)
	}
	return devices.Device(v.Spec)
}

// detach frees the device of a raw block volume. A backend without devices has none to free.
func (p *Publisher) detach(v volume.Volume) error {
	devices, ok := p.backends[v.Backend].(BlockDevice)
	if !ok {
		return nil
	}
	return devices.Detach(v.ID)
}

// clear unmounts what is on the path. A path that is not there is success.
func (p *Publisher) clear(path string, remove func(*target.Point) error) error {
	point, err := p.targets.Point(path, false)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer point.Close()
	return remove(point)
}
