package survey

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/internal/mount"
)

// Pool is the pool of the backend btrfs.
type Pool struct {
	Root     string // where it is mounted
	InDisk   bool   // it is a directory of a btrfs disk, and has no file
	Path     string // of its file
	ID       string // UUID that was written down when it was made; "" if it never was
	Is       *File  // its file; nil if that is missing
	Another  bool   // what is mounted is another file than the one of that name
	Open     bool   // it is mounted, and all that follows is known
	ReadOnly bool

	UUID     string
	Quota    btrfs.Quota
	Room     btrfs.Room // zero in a directory of a disk
	Errors   map[string]int64
	Volumes  map[string]Subvolume // by ID
	Leftover []string             // quota groups without a subvolume

	// Err is why it could not be looked at.
	Err error
}

// Subvolume is a volume in the pool, in bytes.
type Subvolume struct {
	Used  int64
	Limit int64 // -1: it has none
	Image *File // nil if there is none in it
	Err   error // why it could not be looked at
}

func lookAtPool(dataDir string, devices []Device) Pool {
	p := Pool{
		Root:   filepath.Join(dataDir, "pool"),
		Path:   filepath.Join(dataDir, "pool.img"),
		InDisk: btrfs.On(dataDir),
	}
	id, err := os.ReadFile(filepath.Join(dataDir, "pool.id"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.Err = err
	}
	p.ID = strings.TrimSpace(string(id))

	if !p.InDisk {
		p.lookAtFile(devices)
	}

	mounted, err := mount.Mounted(p.Root)
	p.Open = (p.InDisk || mounted) && btrfs.On(p.Root)
	if p.Open {
		err = errors.Join(err, p.lookInside())
	}
	p.Err = errors.Join(p.Err, err)
	return p
}

func (p *Pool) lookAtFile(devices []Device) {
	var st unix.Stat_t
	err := unix.Stat(p.Path, &st)
	if err == nil {
		file := fileOf(&st)
		p.Is = &file
	} else if !errors.Is(err, unix.ENOENT) {
		p.Err = errors.Join(p.Err, &os.PathError{Op: "stat", Path: p.Path, Err: err})
	}

	for _, d := range devices {
		if d.Thing == "pool" && p.Is != nil {
			p.Another = d.Backing != loop.Backing{Device: st.Dev, Inode: st.Ino}
		}
	}
}

func (p *Pool) lookInside() error {
	root, err := os.Open(p.Root)
	if err != nil {
		return err
	}
	defer root.Close()

	info, err := btrfs.Stat(root)
	if err != nil {
		return err
	}
	p.UUID = info.UUID
	p.Quota, _ = btrfs.QuotaOf(info)

	var disk unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &disk); err != nil {
		return &os.PathError{Op: "statfs", Path: p.Root, Err: err}
	}
	p.ReadOnly = disk.Flags&unix.ST_RDONLY != 0

	if p.Errors, err = btrfs.Errors(info); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := p.measure(root, info); err != nil {
		return err
	}
	return p.lookAtVolumes(info)
}

func (p *Pool) measure(root *os.File, info btrfs.Info) error {
	if p.InDisk {
		return nil
	}

	meter, err := btrfs.NewMeter(root, info)
	if err != nil {
		return err
	}
	defer meter.Close()

	p.Room, err = meter.Room()
	return err
}

func (p *Pool) lookAtVolumes(info btrfs.Info) error {
	dir, err := os.Open(filepath.Join(p.Root, "volumes"))
	if err != nil {
		return err
	}
	defer dir.Close()

	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	p.Volumes = map[string]Subvolume{}
	for _, name := range names {
		if v := lookAtVolume(dir, info, name); !errors.Is(v.Err, fs.ErrNotExist) {
			p.Volumes[name] = v
		}
	}

	if p.Quota == "" {
		return nil
	}
	p.Leftover, err = btrfs.Leftover(dir)
	return err
}

func lookAtVolume(dir *os.File, info btrfs.Info, name string) Subvolume {
	root, err := btrfs.Open(dir, name)
	if err != nil {
		return Subvolume{Err: err}
	}
	defer root.Close()

	sub, err := btrfs.Inspect(root)
	if err != nil {
		return Subvolume{Err: err}
	}

	v := Subvolume{Limit: btrfs.LimitOf(info, sub)}
	if v.Limit >= 0 {
		// It may be deleted at this moment.
		v.Used, _ = btrfs.Usage(info, sub)
	}

	var st unix.Stat_t
	if unix.Fstatat(int(root.Fd()), "image", &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		file := fileOf(&st)
		v.Image = &file
	}
	return v
}

// number is that of a device, as in the table of mounts.
func number(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }
