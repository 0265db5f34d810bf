package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/treewalk"
)

// maxLinked is of how many files with several names the first one is remembered.
const maxLinked = 1 << 20

// directory is one that the walk is below.
type directory struct {
	path   string // below the root; "" for that itself
	header *tar.Header
}

// tree writes all that is in a directory, and the directory. A directory is written after what is in it, so
// that its time is the last thing that is done to it when it is made.
func (w *writer) tree(root *os.File) error {
	walk := &treewalk.Walk{}
	defer walk.Close()

	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: root.Name(), Err: err}
	}
	here, err := enter(walk, int(root.Fd()), "", "", &st)
	if err != nil {
		return err
	}

	above := []directory{here}
	for {
		dir, name, err := walk.Next()
		if err != nil {
			return err
		}

		for len(above) > walk.Depth()+1 {
			if err := w.tar.WriteHeader(above[len(above)-1].header); err != nil {
				return err
			}
			above = above[:len(above)-1]
		}
		if dir < 0 {
			return nil
		}

		below := path.Join(above[len(above)-1].path, name)
		entered, err := w.entry(walk, dir, name, below)
		if err != nil {
			return fmt.Errorf("%s: %w", below, err)
		}
		if entered != nil {
			above = append(above, *entered)
		}
	}
}

// entry writes what a name in an open directory stands for, or enters it.
func (w *writer) entry(walk *treewalk.Walk, dir int, name, below string) (*directory, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	if len(below) > maxPath {
		return nil, fmt.Errorf("the path has more than %d bytes", maxPath)
	}

	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		return nil, nil
	}
	if kind == unix.S_IFDIR {
		fd, err := beneath.Open(dir, name, unix.O_PATH|unix.O_DIRECTORY, beneath.NoLinks)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)

		entered, err := enter(walk, fd, name, below, &st)
		return &entered, err
	}

	header, err := headerOf(beneath.Path(dir)+"/"+name, below, &st)
	if err != nil {
		return nil, err
	}

	if st.Nlink > 1 {
		first, known := w.linked[st.Ino]
		if known {
			header = &tar.Header{Typeflag: tar.TypeLink, Name: header.Name, Linkname: first}
			return nil, w.tar.WriteHeader(header)
		}

		if len(w.linked) == maxLinked {
			return nil, fmt.Errorf("more than %d files have several names", maxLinked)
		}
		w.linked[st.Ino] = header.Name
	}

	return nil, w.special(header, dir, name, &st)
}

// special writes what is not a directory.
func (w *writer) special(header *tar.Header, dir int, name string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err := beneath.Open(dir, name, unix.O_RDONLY|unix.O_NONBLOCK, beneath.NoLinks)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), header.Name)
		defer f.Close()

		header.Typeflag = tar.TypeReg
		return w.file(header, f, st.Size)

	case unix.S_IFLNK:
		target := make([]byte, maxPath+1)
		n, err := unix.Readlinkat(dir, name, target)
		if err != nil {
			return fmt.Errorf("read link: %w", err)
		}

		header.Typeflag, header.Linkname = tar.TypeSymlink, string(target[:n])

	case unix.S_IFIFO:
		header.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		header.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		header.Typeflag = tar.TypeBlock
	default:
		return errors.New("a file of unknown type")
	}

	header.Devmajor, header.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	return w.tar.WriteHeader(header)
}

// enter has the walk go on in an open directory.
func enter(walk *treewalk.Walk, fd int, name, below string, st *unix.Stat_t) (directory, error) {
	if err := walk.Enter(fd, name, st); err != nil {
		return directory{}, err
	}

	header, err := headerOf(beneath.Path(fd)+"/.", below, st)
	if err != nil {
		return directory{}, err
	}

	header.Typeflag = tar.TypeDir
	header.Name = strings.TrimSuffix(header.Name, "/") + "/"
	return directory{path: below, header: header}, nil
}

// headerOf says what all kinds of files have. at is a path that leads to the file.
func headerOf(at, below string, st *unix.Stat_t) (*tar.Header, error) {
	records, err := attributes(at)
	if err != nil {
		return nil, err
	}
	return &tar.Header{
		Name:       contentName + "/" + below,
		Mode:       int64(st.Mode & 0o7777),
		Uid:        int(st.Uid),
		Gid:        int(st.Gid),
		ModTime:    timeOf(st.Mtim),
		PAXRecords: records,
		Format:     tar.FormatPAX,
	}, nil
}
