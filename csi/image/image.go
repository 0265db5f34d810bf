// Package image holds a volume in a file behind a loop device: a file system, or raw for block volumes. Where
// the files are, and how their bytes are kept, is up to who has them.
package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/keyfile"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

// Images are the files of volumes.
type Images struct {
	// Path returns where the file of a volume is. Nobody else can change what is on the way to it.
	Path func(id string) string

	instance string
	keys     keyfile.Dir
	mkfs     map[string]string // by file system: path of the program; those that are installed
}

// What all who have images can do with volumes in use.
var (
	_ publish.Backend     = (*Images)(nil)
	_ publish.BlockDevice = (*Images)(nil)
	_ publish.Grower      = (*Images)(nil)
	_ publish.OwnDevice   = (*Images)(nil)
	_ publish.Unlocker    = (*Images)(nil)
	_ volume.Encrypting   = (*Images)(nil)
)

// New looks for the mkfs programs. It fails where there are no loop devices. The instance marks loop devices
// as those of these images; keys has the key files of those that are encrypted.
func New(instance string, keys keyfile.Dir, path func(id string) string) (*Images, error) {
	x := &Images{
		Path:     path,
		instance: instance,
		keys:     keys,
		mkfs:     map[string]string{},
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return nil, fmt.Errorf("no loop devices: %w", err)
	}

	for fs := range fileSystems {
		if path, err := exec.LookPath("mkfs." + fs); err == nil {
			x.mkfs[fs] = path
		}
	}

	return x, nil
}

func (x *Images) tag(id string) string { return loop.TagOf(x.instance, id) }

// Complete fills in the file system, see volume.Backend. Where the request leaves it open, it is xfs, which
// can always grow in use; ext4 for small volumes, where mkfs.xfs is missing, and where xfs does not know a
// mount option.
func (x *Images) Complete(s *volume.Spec, options []string) error {
	if s.Access == volume.Block {
		if s.FSType != "" {
			return fmt.Errorf("%w: a raw block volume has no file system %q", volume.ErrInvalid, s.FSType)
		}

		return nil
	}

	var errs []error
	for _, fs := range candidates(*s) {
		if err := x.check(fs, options); err != nil {
			errs = append(errs, err)
			continue
		}

		s.FSType = fs
		s.Size = max(s.Size, fileSystems[fs].smallest)
		return nil
	}

	return fmt.Errorf("%w: %w", volume.ErrInvalid, errors.Join(errs...))
}

// check returns why there can be no volume with the file system and those mount options on this node.
func (x *Images) check(fs string, options []string) error {
	kind, ok := fileSystems[fs]
	if !ok {
		return fmt.Errorf("no file system %q, but ext4 and xfs", fs)
	}
	if x.mkfs[fs] == "" {
		return fmt.Errorf("mkfs.%s is not installed on this node (Debian package %s)", fs, kind.debianPackage)
	}
	return target.CheckOptions(fs, target.ParseOptions(options))
}

// Format makes the file system of a new volume in its file; none in that of a raw block volume.
func (x *Images) Format(s volume.Spec) error {
	if s.FSType == "" {
		return nil
	}
	return format(x.mkfs[s.FSType], s, x.Path(s.ID))
}

// unusedMark is an attribute of files that were made and never attached: there is certainly no data in them.
// It distinguishes what a power loss left of a creation that was never acknowledged from a volume whose
// record is lost.
const unusedMark = "user.trivet.unused"

// MarkUnused marks a new file. Where the disk's file system has no attributes, every file counts as used.
func MarkUnused(f *os.File) { _ = unix.Fsetxattr(int(f.Fd()), unusedMark, []byte{'1'}, 0) }

// IsUnused reports whether a file was never attached.
func IsUnused(path string) bool {
	_, err := unix.Lgetxattr(path, unusedMark, nil)
	return err == nil
}

// markUsed takes the mark off, so that not even a power loss puts it back, before anybody can write to the
// file.
func markUsed(path string) error {
	if !IsUnused(path) {
		return nil
	}

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()

	if err := unix.Fremovexattr(int(f.Fd()), unusedMark); err != nil && !errors.Is(err, unix.ENODATA) {
		return fmt.Errorf("mark %s as used: %w", path, err)
	}

	return f.Sync()
}
