// Package staging is the part of CSI that belongs to the node and to no pod: a volume is staged once for all
// pods that use it, and unstaged when none does any more, apart from the end of the last of them. A record on
// disk, kubelet's, says what is staged: the Unstager needs nothing else, after a crash, a reboot, or a change
// from kubelet. Who uses a volume, and what a driver is told when it stages one, its caller knows.
package staging

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/node/csivolume/record"
)

// Place is where a volume is staged on the node, and what says so. The pods share it.
type Place struct {
	Driver string
	Handle string

	// Path is where the driver stages the volume.
	Path string

	// Spec is the name of a block volume on disk, empty for a file system.
	Spec string

	// dir is the directory of the record of the staging.
	dir string
}

// Of is the place of a file system, which all volumes of its handle share.
func Of(root, driver, handle string) Place {
	dir := filepath.Join(plugins(root), driver, fmt.Sprintf("%x", sha256.Sum256([]byte(handle))))
	return mountedIn(dir, driver, handle)
}

// mountedIn is the place of a file system whose record is in dir.
func mountedIn(dir, driver, handle string) Place {
	return Place{
		Driver: driver,
		Handle: handle,
		Path:   filepath.Join(dir, "globalmount"),
		dir:    dir,
	}
}

// OfBlock is the place of a block volume, by the name of the persistent volume.
func OfBlock(root, spec, driver, handle string) Place {
	spec = SpecDir(spec)
	return Place{
		Driver: driver,
		Handle: handle,
		Spec:   spec,
		Path:   filepath.Join(Devices(root), "staging", spec),
		dir:    filepath.Join(Devices(root), spec, "stage"),
	}
}

// plugins is kubelet's directory of what it has of CSI volumes.
func plugins(root string) string { return filepath.Join(root, "plugins", "kubernetes.io", "csi") }

const (
	// devices is the directory of block volumes, beside those of drivers.
	devices = "volumeDevices"

	// data is the directory of the record of a block volume that its pods share.
	data = "data"
)

// Devices is the directory of what is there of block volumes.
func Devices(root string) string { return filepath.Join(plugins(root), devices) }

// SpecDir is the name of a volume as the name of a directory.
func SpecDir(spec string) string { return strings.ReplaceAll(spec, "/", "~") }

// Name names the volume.
func (p Place) Name() string { return p.Driver + "^" + p.Handle }

func (p Place) record() record.Record { return record.Record{Handle: p.Handle, Driver: p.Driver} }

func (p Place) file() string { return filepath.Join(p.dir, record.File) }

// sharedFile is the record of a block volume that its pods share.
func (p Place) sharedFile() string { return filepath.Join(filepath.Dir(p.dir), data, record.File) }

// Staged reports whether the volume was staged in this boot and still is.
func (p Place) Staged(boot string) (bool, error) {
	r, found, err := record.Read(p.file())
	if !found {
		return false, err
	}
	if err := p.mustBe(r); err != nil {
		return false, err
	}
	return r.Holds(boot, p.Path)
}

// ErrTaken: there is another volume.
var ErrTaken = errors.New("another volume is there")

// Check returns an error (ErrTaken) if the records are those of another volume: a block volume has its place
// by the name of a persistent volume, which may have been made again for something else.
func (p Place) Check() error {
	files := []string{p.file()}
	if p.Spec != "" {
		files = append(files, p.sharedFile())
	}

	for _, file := range files {
		r, found, err := record.Read(file)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if err := p.mustBe(r); err != nil {
			return err
		}
	}

	return nil
}

// mustBe returns an error if a record of the place is that of another volume.
func (p Place) mustBe(r record.Record) error {
	if r.Driver == p.Driver && r.Handle == p.Handle {
		return nil
	}
	return fmt.Errorf("place of volume %s of driver %s: %w: %s of driver %s, which is not yet unstaged",
		p.Handle, p.Driver, ErrTaken, r.Handle, r.Driver)
}

// Begin records that the driver is about to stage the volume: from here on nobody knows whether it is staged.
// It makes the directory for that, without a look at what may be mounted there.
func (p Place) Begin() error {
	if err := p.record().Write(p.file()); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.Path), 0o750); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(p.Path), err)
	}
	if err := os.Mkdir(p.Path, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make place of volume %s: %w", p.Handle, err)
	}
	return nil
}

// BeginUnstaging records that the driver is about to unstage the volume: from here on nobody knows whether it
// is staged. Where the record says so already nothing is written, so that this may be repeated on a disk that
// is full.
func (p Place) BeginUnstaging() error {
	r, found, err := record.Read(p.file())
	if err != nil || found && r.Ready == "" {
		return err
	}
	return p.record().Write(p.file())
}

// Finish records that the volume is staged.
func (p Place) Finish(boot string) error { return p.record().Finish(boot, p.Path, p.file()) }

// MayBeStaged reports whether a driver was asked to stage the volume and has neither refused nor undone it.
func (p Place) MayBeStaged() (bool, error) {
	for _, path := range []string{p.dir, p.Path} {
		is, err := exists(path)
		if is || err != nil {
			return is, err
		}
	}
	return false, nil
}

// exists reports whether there is something of that path. What is mounted there is not asked: its server may
// be gone, or never answer.
func exists(path string) (bool, error) {
	parent, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s: %w", filepath.Dir(path), err)
	}
	defer unix.Close(parent)

	fd, err := beneath.Open(parent, filepath.Base(path), unix.O_PATH|unix.O_NOFOLLOW, beneath.OneFileSystem)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case errors.Is(err, unix.EXDEV):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("open %s: %w", path, err)
	}

	unix.Close(fd)
	return true, nil
}

// End removes what is left of a staging that the driver has undone or refused.
func (p Place) End() error {
	if err := removal.Tree(p.Path); err != nil {
		return err
	}
	return record.RemoveDir(p.dir)
}

// Forget removes what is there of a volume that is not staged and that no pod uses. The record of a block
// volume, by which List finds it, goes last.
func (p Place) Forget() error {
	if err := p.End(); err != nil || p.Spec == "" {
		return err
	}

	own := filepath.Dir(p.dir)
	published := filepath.Join(filepath.Dir(own), "publish", p.Spec)
	for _, remove := range []func() error{
		func() error { return removeEmpty(published) },
		func() error { return removal.Tree(filepath.Join(own, "dev")) },
		func() error { return record.RemoveDir(filepath.Join(own, data)) },
		func() error { return removeEmpty(own) },
	} {
		if err := remove(); err != nil {
			return fmt.Errorf("forget volume %s: %w", p.Handle, err)
		}
	}

	return nil
}

// removeEmpty removes a directory unless something is in it: a volume may have the name of a directory that
// is there for all of them.
func removeEmpty(dir string) error {
	err := os.Remove(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}
