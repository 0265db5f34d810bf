package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/removal"
)

// moveAlongLinks moves what is in a directory for which the layer has no entry (it has lib/x but not lib) and
// that is a link in the layers below (lib -> usr/lib) to where the link leads, as if it had been unpacked
// there. Else the directory would hide the link, and all that is reached by it. Directories come after those
// that they are in, and everything is moved at once to where it stays, so the work is in proportion to the
// layer.
func (s *completion) moveAlongLinks(ctx context.Context) error {
	// Moving adds directories.
	for id := rootDirectory + 1; int(id) < len(s.dirs.all); id++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		name, hidden, ok := s.dirs.path(id)
		if !ok {
			continue
		}
		if len(name) >= unix.PathMax {
			return fmt.Errorf("directory %q: %w", shorten(name), unix.ENAMETOOLONG)
		}
		if s.dirs.all[id].described || hidden {
			continue
		}

		into, err := s.linkedDirectory(name)
		if err != nil {
			return fmt.Errorf("directory %q: %w", shorten(name), err)
		}

		if into == noDirectory {
			s.dirs.all[id].stays = true
			continue
		}

		if err := s.merge(ctx, id, into); err != nil {
			return fmt.Errorf("move %q to where it leads: %w", shorten(name), err)
		}
	}

	return nil
}

// linkedDirectory returns the directory to which a link below leads, which it makes if it is missing. It is
// noDirectory if there is no link, or one that cannot lead to a directory.
func (s *completion) linkedDirectory(name string) (int32, error) {
	_, st, err := s.below.at(name)
	if errors.Is(err, unix.ENOENT) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return noDirectory, nil
	}
	if err != nil {
		return noDirectory, err
	}
	return s.follow(name)
}

// follow returns the directory to which a link leads, in the layer or below, and makes it if it is missing.
// It is noDirectory if there cannot be one.
func (s *completion) follow(name string) (int32, error) {
	to, err := s.resolve(name)
	if errors.Is(err, unix.ELOOP) {
		return noDirectory, nil
	}
	if err != nil {
		return noDirectory, err
	}
	if can, err := s.canBeDirectory(to); err != nil || !can {
		return noDirectory, err
	}

	into, err := s.ensure(to.name)
	if errors.Is(err, unix.ENOTDIR) {
		return noDirectory, nil
	}

	return into, err
}

// ensure makes the directories of a resolved name that are missing.
func (s *completion) ensure(name string) (int32, error) {
	at := rootDirectory
	path := ""
	way := stepsOf(name)
	for step := way.next(); step != ""; step = way.next() {
		path = join(path, step)
		next, ok := s.dirs.child(at, step)
		if !ok {
			var err error
			if next, err = s.make(at, path, step); err != nil {
				return noDirectory, err
			}
		}

		at = next
	}

	return at, nil
}

func (s *completion) make(parent int32, path, base string) (int32, error) {
	_, hides, err := mkdir(s.root, path, 0o755, false)
	if err != nil {
		return noDirectory, err
	}

	id, err := s.dirs.add(parent, base)
	if err != nil {
		return noDirectory, err
	}

	s.dirs.all[parent].touched = true
	s.result.addDirectory()
	if hides {
		err = s.hide(id, path)
	}

	return id, err
}

// hide makes a directory opaque.
func (s *completion) hide(id int32, path string) error {
	fd, err := openIn(s.root, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	s.dirs.all[id].opaque = true
	return setOpaque(fd)
}

// merge moves all that is in one directory into another, and deletes the first. Of two files, the one that is
// moved counts.
func (s *completion) merge(ctx context.Context, from, into int32) error {
	source, _, _ := s.dirs.path(from)
	target, _, _ := s.dirs.path(into)
	s.dirs.all[into].touched = true
	s.dirs.all[s.dirs.all[from].parent].touched = true

	// Directories of any size are read in parts.
	for {
		names, err := s.names(source)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			break
		}

		for _, base := range names {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}

			m := movement{
				base:   base,
				from:   from,
				into:   into,
				source: join(source, base),
				target: join(target, base),
			}
			if err := s.move(ctx, m); err != nil {
				return err
			}
		}
	}

	s.dirs.remove(from)
	return unix.Unlinkat(s.root, source, unix.AT_REMOVEDIR)
}

// names returns some of the names in a directory. merge moves these before it asks for more.
func (s *completion) names(dir string) ([]string, error) {
	fd, err := openIn(s.root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), dir)
	defer f.Close()
	names, err := f.Readdirnames(512)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// movement is one name that is moved from a directory into another.
type movement struct {
	base           string
	from, into     int32
	source, target string // the whole names
}

func (s *completion) move(ctx context.Context, m movement) error {
	if len(m.target) >= unix.PathMax {
		return fmt.Errorf("%q: %w", shorten(m.target), unix.ENAMETOOLONG)
	}

	moved, isDir := s.dirs.child(m.from, m.base)
	there, meets := s.dirs.child(m.into, m.base)
	if isDir && meets {
		return s.mergeBoth(ctx, m, moved, there)
	}

	var st unix.Stat_t
	err := unix.Fstatat(s.root, m.target, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return s.rename(m, moved, isDir)
	}

	if err != nil {
		return err
	}

	isLink := st.Mode&unix.S_IFMT == unix.S_IFLNK
	if isDir && isLink && !s.dirs.all[moved].described && !s.dirs.all[moved].opaque {
		// The layer has no entry for the directory, so its files belong where the link leads.
		into, err := s.follow(m.target)
		if err != nil {
			return err
		}
		if into != noDirectory {
			return s.merge(ctx, moved, into)
		}
	}

	return s.replace(m, isWhiteout(&st))
}

// replace moves a name onto another one. Of two files the moved one counts, unless it is a whiteout, which is
// about lower layers only.
func (s *completion) replace(m movement, hides bool) error {
	moved, isDir := s.dirs.child(m.from, m.base)
	there, meets := s.dirs.child(m.into, m.base)
	var st unix.Stat_t
	err := unix.Fstatat(s.root, m.source, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}

	// A whiteout that is moved hides what is below the target; the file there does so already.
	if isWhiteout(&st) {
		if meets {
			err = s.hide(there, m.target)
		}

		return errors.Join(err, unix.Unlinkat(s.root, m.source, 0))
	}

	if meets {
		s.dirs.remove(there)
	}
	if err := s.remove(m.target, m.base); err != nil {
		return err
	}
	if err := s.rename(m, moved, isDir); err != nil || !isDir || !hides {
		return err
	}

	return s.hide(moved, m.target)
}

// mergeBoth moves a directory onto another one. If that one has to be moved itself, both go to the same
// place.
func (s *completion) mergeBoth(ctx context.Context, m movement, moved, there int32) error {
	if s.dirs.all[moved].described {
		if err := s.describeAs(m); err != nil {
			return err
		}

		s.dirs.all[there].described = true
		s.dirs.all[there].time = s.dirs.all[moved].time
	}

	// What either of the two hides is hidden.
	if s.dirs.all[moved].opaque {
		if err := s.hide(there, m.target); err != nil {
			return err
		}
	}

	if d := &s.dirs.all[there]; d.described || d.stays {
		return s.merge(ctx, moved, there)
	}

	_, hidden, _ := s.dirs.path(there)
	if hidden {
		return s.merge(ctx, moved, there)
	}

	// The target itself may be a link in the layers below.
	further, err := s.linkedDirectory(m.target)
	if err != nil {
		return err
	}
	if further == noDirectory {
		further = there
	}

	return s.merge(ctx, moved, further)
}

// describeAs gives the directory at the target the owner, mode and attributes of the one that is moved there.
func (s *completion) describeAs(m movement) error {
	from, err := openIn(s.root, m.source, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(from)

	to, err := openIn(s.root, m.target, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(to)

	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}

	return copyAttributes(from, to, st)
}

func (s *completion) rename(m movement, moved int32, isDir bool) error {
	if err := unix.Renameat(s.root, m.source, s.root, m.target); err != nil {
		return err
	}
	if isDir {
		s.dirs.move(moved, m.into, m.base)
	}
	return nil
}

// remove deletes what is at a name.
func (s *completion) remove(name, base string) error {
	parent, err := openIn(s.root, parentOf(name), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return removal.At(parent, base)
}
