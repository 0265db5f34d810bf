package layer

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Complete adds to an unpacked layer what depends on those below (lower, the lowest first), as if all had
// been unpacked into one tree: it moves what the layer has in a directory that is a link below, makes hard
// links to files below, and sets owner and mode of directories for which the layer has no entry. Unpacking
// does not need the layers below, so all layers can be unpacked at once.
func Complete(ctx context.Context, dir string, lower []string, result *Result) error {
	if len(lower) == 0 && len(result.links) == 0 {
		return nil
	}

	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(root)

	below, err := openBelow(lower)
	if err != nil {
		return err
	}
	defer below.close()

	// Moving comes first: links and owners are looked for where files are in the end.
	s := completion{merged: merged{root: root, dirs: result.dirs, below: below}, result: result}
	for _, step := range []func(context.Context) error{s.moveAlongLinks, s.makeLinks, s.inherit} {
		if err := step(ctx); err != nil {
			return err
		}
	}

	return nil
}

// completion is one call of Complete.
type completion struct {
	merged
	result *Result
}

// inherit gives directories for which the layer has no entry the owner, mode and time of those that they are
// merged with, and sets the time of the others again if something was moved there.
func (s *completion) inherit(ctx context.Context) error {
	for id := range s.dirs.all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		d := &s.dirs.all[id]
		name, hidden, ok := s.dirs.path(int32(id))
		var err error
		switch {
		case !ok:
			continue
		case d.described && d.touched:
			err = setDirectoryTime(s.root, name, d.time)
		case !d.described && !hidden:
			err = s.inheritOne(name)
		}

		if err != nil {
			return fmt.Errorf("directory %q: %w", shorten(name), err)
		}
	}

	return nil
}

func (s *completion) inheritOne(name string) error {
	_, st, err := s.below.at(name)
	if errors.Is(err, unix.ENOENT) || err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		// The directory is new in this layer.
		return nil
	}

	if err != nil {
		return err
	}

	fd, err := openIn(s.root, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)

	return copyStat(fd, st)
}

// copyStat gives an open file the owner, mode and times of another. The owner comes first, since a change of
// it clears bits of the mode.
func copyStat(fd int, st unix.Stat_t) error {
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}
