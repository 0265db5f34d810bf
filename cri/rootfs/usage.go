package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/durable"
)

// Usage is what a container wrote.
type Usage struct{ Bytes, Inodes int64 }

// Usage walks the writable layer of a container: its cost grows with the number of files that the container
// wrote. One that is not there uses nothing. What cannot be seen (a path longer than the kernel takes, a file
// that is removed meanwhile) is not counted: no container may keep the node from knowing about the others.
func (s *Store) Usage(id string) (Usage, error) {
	if err := checkID(id); err != nil {
		return Usage{}, err
	}
	written, err := usage(s.upper(id))
	if err != nil {
		return Usage{}, err
	}
	volumes, err := usage(s.volumes(id))
	return Usage{Bytes: written.Bytes + volumes.Bytes, Inodes: written.Inodes + volumes.Inodes}, err
}

// TotalUsage returns what all containers wrote.
func (s *Store) TotalUsage() (Usage, error) { return usage(s.containers()) }

// Dir returns where the writable layers are, for ImageFsInfo.
func (s *Store) Dir() string { return s.cfg.Dir }

// walk counts what is below a directory that a container writes to. Of each directory on the way it
// remembers a page of names, so that neither descriptors nor memory grow with what is there.
type walk struct {
	root   int
	levels []level
	page   []byte

	bytes, inodes float64 // a file of several names counts in part for each
}

// level is a directory on the way.
type level struct {
	name string   // below root
	next int64    // where to go on reading
	dirs []string // directories that were read and not yet walked
	done bool     // nothing is left to read
}

func usage(dir string) (Usage, error) {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return Usage{}, nil
	}
	if err != nil {
		return Usage{}, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(root)

	w := walk{root: root, levels: []level{{name: "."}}, page: make([]byte, 16<<10)}
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return Usage{}, fmt.Errorf("stat %s: %w", dir, err)
	}

	w.add(st)

	// Depth first: what is remembered grows with the depth, not with the number of files.
	for len(w.levels) > 0 {
		l := &w.levels[len(w.levels)-1]
		switch {
		case len(l.dirs) > 0:
			down := l.name + "/" + l.dirs[0]
			l.dirs = l.dirs[1:]
			w.levels = append(w.levels, level{name: down})

		case l.done:
			w.levels = w.levels[:len(w.levels)-1]
		default:
			w.read(l)
		}
	}

	return Usage{Bytes: int64(w.bytes), Inodes: int64(w.inodes + 0.5)}, nil
}

// read counts a page of a directory. One that cannot be opened, because it is gone or its path is too long
// for the kernel, is done.
func (w *walk) read(l *level) {
	l.done = true
	rule := beneath.NoLinks | beneath.OneFileSystem
	dir, err := beneath.Open(w.root, l.name, unix.O_RDONLY|unix.O_DIRECTORY, rule)
	if err != nil {
		return
	}
	defer unix.Close(dir)

	if _, err := unix.Seek(dir, l.next, unix.SEEK_SET); err != nil {
		return
	}

	n, err := unix.ReadDirent(dir, w.page)
	if err != nil || n <= 0 {
		return
	}

	_, _, names := unix.ParseDirent(w.page[:n], -1, nil)
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}

		w.add(st)
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			l.dirs = append(l.dirs, name)
		}
	}

	if l.next, err = unix.Seek(dir, 0, unix.SEEK_CUR); err == nil {
		l.done = false
	}
}

func (w *walk) add(st unix.Stat_t) {
	names := 1.0
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		names = float64(st.Nlink)
	}
	w.bytes += float64(st.Blocks*512) / names
	w.inodes += 1 / names
}

// checkID returns an error for an ID that would be a path.
func checkID(id string) error {
	if !durable.ValidName(id) {
		return &os.PathError{Op: "rootfs", Path: id, Err: fs.ErrInvalid}
	}
	return nil
}
