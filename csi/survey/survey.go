// Package survey looks at what is on a node of the driver: records, pool, images, loop devices, mounts, the
// disk and what the kernel can do. It changes nothing and takes no lock, so that it works beside a driver and
// without one; what a driver was doing at that moment may look wrong in it, and does not in the next. What
// is wrong is decided by package doctor.
package survey

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/datadir"
	"github.com/trivet-node/trivet/csi/group"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
)

// Config says where the driver is.
type Config struct {
	DataDir    string
	StateDir   string
	KubeletDir string
	Witness    string // see datadir.Place
}

// Survey is what was found.
type Survey struct {
	At      time.Time
	DataDir string
	Name    string                     // of DataDir; "": no driver has ever served it
	Place   error                      // a *datadir.Mismatch if that is not where the volumes are
	Records map[string]volume.Recorded // by ID
	Staged  map[string]publish.Staged  // by ID of the volume
	Groups  map[string]group.Recorded  // by ID

	// Unreadable are records that are none, and those that were set aside.
	Unreadable []durable.Unreadable

	Pool    Pool
	Images  map[string]File // those on the disk, by ID of the volume; nil: their directory is not there
	Quota   Quota
	Keys    []Key
	Devices []Device
	Mounts  []Mount
	Limits  Limits
	Others  []string // paths in the data directory that the driver knows nothing of
	Disk    Disk
	Kernel  Kernel
}

// File is one that holds a volume, in bytes.
type File struct {
	Size      int64
	Allocated int64
}

// Disk is the one of the data directory, in bytes.
type Disk struct {
	Size int64
	Free int64 // for who is not root
}

// Take looks at everything. An error says that something could not be looked at at all.
func Take(ctx context.Context, cfg Config) (Survey, error) {
	s := Survey{At: time.Now(), DataDir: cfg.DataDir, Kernel: lookAtKernel()}
	if err := s.lookAtRecords(cfg); err != nil {
		return s, err
	}

	place := datadir.Place{Dir: cfg.DataDir, Witness: cfg.Witness}
	s.Place = place.Check()
	var err error
	if s.Name, err = place.Name(); err != nil {
		return s, err
	}
	if s.Devices, err = devicesOf(s.Name); err != nil {
		return s, err
	}

	s.Pool = lookAtPool(cfg.DataDir, s.Devices)
	if s.Quota, err = lookAtQuota(cfg.DataDir); err != nil {
		return s, err
	}
	if s.Mounts, err = mountsOf(s.Pool, s.Quota, s.Devices); err != nil {
		return s, err
	}
	if s.Images, err = imagesIn(filepath.Join(cfg.DataDir, "images")); err != nil {
		return s, err
	}

	if s.Keys, err = keysIn(filepath.Join(cfg.DataDir, "keys")); err != nil {
		return s, err
	}

	s.Limits = s.lookAtLimits(cfg.KubeletDir)
	if s.Others, err = othersIn(cfg.DataDir); err != nil {
		return s, err
	}
	s.Disk, err = lookAtDisk(cfg.DataDir)
	return s, errors.Join(err, context.Cause(ctx))
}

func (s *Survey) lookAtRecords(cfg Config) error {
	var unreadable []durable.Unreadable
	var errs [3]error
	s.Records, s.Unreadable, errs[0] = volume.Read(filepath.Join(cfg.DataDir, "volumes"))
	s.Staged, unreadable, errs[1] = publish.Read(filepath.Join(cfg.StateDir, "staged"))
	s.Unreadable = append(s.Unreadable, unreadable...)
	s.Groups, unreadable, errs[2] = group.Read(filepath.Join(cfg.DataDir, "groups"))
	s.Unreadable = append(s.Unreadable, unreadable...)
	return errors.Join(errs[:]...)
}

// Device is a loop device of the driver.
type Device struct {
	Path   string // such as /dev/loop3
	Thing  string // "pool", or the ID of a volume
	Number string // "MAJOR:MINOR"
	ID     uint64 // the same as one number; 0: unknown

	Backing loop.Backing
}

func devicesOf(instance string) ([]Device, error) {
	if instance == "" {
		return nil, nil
	}

	prefix := loop.TagOf(instance, "")
	found, err := loop.Find(prefix)
	var devices []Device
	for tag, f := range found {
		d := Device{Path: f.Name(), Thing: strings.TrimPrefix(tag, prefix)}
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) == nil {
			d.Number, d.ID = number(st.Rdev), st.Rdev
		}

		// One that was detached meanwhile has none.
		d.Backing, _ = loop.BackingOf(f)
		devices = append(devices, d)
		f.Close()
	}

	slices.SortFunc(devices, func(a, b Device) int { return strings.Compare(a.Thing, b.Thing) })
	return devices, err
}

func imagesIn(dir string) (map[string]File, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}

	images := map[string]File{}
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, e.Name()), &st) == nil {
			images[strings.TrimSuffix(e.Name(), ".img")] = fileOf(&st)
		}
	}
	return images, err
}

func fileOf(st *unix.Stat_t) File { return File{Size: st.Size, Allocated: st.Blocks * 512} }

// known are the names in a data directory. lost+found is that of a disk of its own.
var known = []string{
	"attached", "claims", "groups", "images", "instance", "keys", "lock", "lost+found",
	"pool", "pool.id", "pool.img", "pool.settled", "quota", "volumes",
}

func othersIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var others []string
	for _, e := range entries {
		if !slices.Contains(known, e.Name()) {
			others = append(others, filepath.Join(dir, e.Name()))
		}
	}
	return others, err
}

func lookAtDisk(dir string) (Disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Disk{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return Disk{Size: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, nil
}

// Promised returns what is promised to all volumes and snapshots, by backend.
func (s Survey) Promised() map[string]int64 {
	needs := space.NewNeeds()
	var ids []string
	for id, r := range s.Records {
		if r.Err == nil {
			ids = append(ids, needs.Set(id, r.Need())...)
		}
	}

	sums := map[string]int64{}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if promise, ok := needs.Of(id); ok {
			sums[promise.Backend] += promise.Bytes
		}
	}
	return sums
}
