package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// makeLinks makes the hard links whose targets were not in the layer when it was unpacked.
func (s *completion) makeLinks(ctx context.Context) error {
	for _, l := range s.result.links {
		if err := s.makeLink(ctx, l); err != nil {
			return fmt.Errorf("hard link %q to %q: %w", shorten(l.name), shorten(l.target), err)
		}
	}
	return nil
}

// makeLink links to a file of the layer. One of a layer below is first copied to the same name in this one,
// as overlayfs does when a file is linked to, so that all its names stay one file.
func (s *completion) makeLink(ctx context.Context, l link) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	name, err := s.placeFor(l.name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EEXIST) {
		// A later entry has the name.
		return nil
	}

	if err != nil {
		return err
	}

	in, err := s.resolve(parentOf(l.target))
	if err != nil {
		return err
	}

	target := join(in.name, path.Base(l.target))

	var st unix.Stat_t
	err = unix.Fstatat(s.root, target, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil && !isWhiteout(&st):
		return unix.Linkat(s.root, target, s.root, name, 0)
	case err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR):
		return err
	case err == nil || in.hidden:
		// The layer links to the file and then removes it.
		return s.copyUp(ctx, target, name)
	}

	if _, err := s.ensure(in.name); err != nil {
		return err
	}
	if err := s.copyUp(ctx, target, target); err != nil || name == target {
		return err
	}

	return unix.Linkat(s.root, target, s.root, name, 0)
}

// placeFor returns where in the layer a name is, with all links resolved. The error is unix.EEXIST if there
// is a file of that name. A whiteout is removed: a file hides what is below as well.
func (s *completion) placeFor(name string) (string, error) {
	in, err := s.resolve(parentOf(name))
	if err != nil {
		return "", err
	}

	parent, err := s.ensure(in.name)
	if err != nil {
		return "", err
	}

	s.dirs.all[parent].touched = true
	name = join(in.name, path.Base(name))
	var st unix.Stat_t
	err = unix.Fstatat(s.root, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return name, nil
	case err != nil:
		return name, err
	case isWhiteout(&st):
		return name, unix.Unlinkat(s.root, name, 0)
	}

	return name, unix.EEXIST
}

// copyUp copies a file of a lower layer to a name in this one.
func (s *completion) copyUp(ctx context.Context, from, to string) error {
	layer, st, err := s.below.at(from)
	if err != nil {
		return err
	}

	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return errors.New("hard link to a directory")
	case unix.S_IFREG:
		s.result.Bytes += st.Blocks * 512
		err = s.copyFile(ctx, layer, from, to, st)
	case unix.S_IFLNK:
		target, linkErr := s.below.readlink(layer, from)
		if linkErr != nil {
			return linkErr
		}

		err = errors.Join(unix.Symlinkat(target, s.root, to), s.statOf(to, st))

	default:
		err = unix.Mknodat(s.root, to, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
		if err == nil {
			err = s.statOf(to, st)
		}
	}

	// The copy is a file of this layer.
	s.result.Inodes++
	return err
}

// statOf gives a file that cannot be opened the owner, mode and times of another file.
func (s *completion) statOf(name string, st unix.Stat_t) error {
	if err := unix.Fchownat(s.root, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(s.root, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(s.root, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func (s *completion) copyFile(ctx context.Context, layer int, from, to string, st unix.Stat_t) error {
	in, err := openIn(s.below.roots[layer], from, unix.O_RDONLY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}

	source := os.NewFile(uintptr(in), from)
	defer source.Close()

	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	out, err := unix.Openat(s.root, to, flags, 0o600)
	if err != nil {
		return err
	}

	target := os.NewFile(uintptr(out), to)
	defer target.Close()

	// Without an error, the two files share their blocks.
	if unix.IoctlFileClone(out, in) != nil {
		if err := copyData(ctx, target, source, st.Size); err != nil {
			return err
		}
	}

	return copyAttributes(in, out, st)
}

// copyData copies what is not a hole, in pieces, so that it ends with its context.
func copyData(ctx context.Context, to, from *os.File, size int64) error {
	const piece = 64 << 20
	for offset := int64(0); offset < size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		start, err := unix.Seek(int(from.Fd()), offset, unix.SEEK_DATA)

		// The rest is a hole.
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}

		end, err := unix.Seek(int(from.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}

		end = min(end, start+piece)
		for _, f := range []*os.File{from, to} {
			if _, err := f.Seek(start, io.SeekStart); err != nil {
				return err
			}
		}

		if _, err := io.CopyN(to, from, end-start); err != nil {
			return err
		}

		offset = end
	}

	return to.Truncate(size)
}

// copyAttributes gives an open file owner, mode, times and extended attributes of another one. The attributes
// come after the owner, whose change drops capabilities; writing them does not change the time.
func copyAttributes(from, to int, st unix.Stat_t) error {
	if err := copyStat(to, st); err != nil {
		return err
	}

	names := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, names)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}

	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:max(n, 0)]), "\x00"), "\x00") {
		if name == "" || isOfOverlayfs(name) {
			continue
		}

		size, err := unix.Fgetxattr(from, name, value)
		if err != nil {
			return err
		}
		if err := setXattr(to, name, value[:size]); err != nil {
			return err
		}
	}

	return nil
}
