package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pack writes an unpacked layer as a tar stream, from which the same layer is unpacked. The stream is the
// same each time.
func pack(ctx context.Context, dir string, to io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()

	p := packer{root: root, tar: tar.NewWriter(to), names: make(map[uint64]string)}
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			err = p.entry(name, d)
		}
		if err != nil {
			return fmt.Errorf("pack %.200q: %w", name, err)
		}

		return nil
	})
	if err != nil {
		return err
	}

	return p.tar.Close()
}

// packer writes one layer into a tar stream.
type packer struct {
	root  *os.Root
	tar   *tar.Writer
	names map[uint64]string // of files with several names, by inode: the first
}

func (p *packer) entry(name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}

	st := info.Sys().(*syscall.Stat_t)

	// A device 0:0 is overlayfs' whiteout.
	if info.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0 {
		return p.mark(path.Join(path.Dir(name), ".wh."+path.Base(name)))
	}

	header := &tar.Header{
		Name:    name,
		Mode:    int64(st.Mode & 0o7777),
		Uid:     int(st.Uid),
		Gid:     int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec),
		Format:  tar.FormatPAX,
	}

	// All names of a file but the first are links to that.
	if first, again := p.names[st.Ino]; again && !d.IsDir() {
		header.Typeflag = tar.TypeLink
		header.Linkname = first
		return p.tar.WriteHeader(header)
	}

	if st.Nlink > 1 && !d.IsDir() {
		p.names[st.Ino] = name
	}

	switch {
	case d.IsDir():
		header.Typeflag = tar.TypeDir
		header.Name = name + "/"
		return p.directory(header, name)

	case info.Mode().IsRegular():
		header.Typeflag = tar.TypeReg
		header.Size = info.Size()
		return p.file(header, name)
	}

	return p.special(header, name, st)
}

// special writes a file whose content is all in its header.
func (p *packer) special(header *tar.Header, name string, st *syscall.Stat_t) (err error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		header.Typeflag = tar.TypeSymlink
		if header.Linkname, err = p.root.Readlink(name); err != nil {
			return err
		}

	case unix.S_IFIFO:
		header.Typeflag = tar.TypeFifo
	case unix.S_IFBLK:
		header.Typeflag = tar.TypeBlock
	case unix.S_IFCHR:
		header.Typeflag = tar.TypeChar
	default:
		return errors.New("a kind of file that layers do not have")
	}

	if header.Typeflag == tar.TypeBlock || header.Typeflag == tar.TypeChar {
		header.Devmajor = int64(unix.Major(st.Rdev))
		header.Devminor = int64(unix.Minor(st.Rdev))
	}

	return p.tar.WriteHeader(header)
}

// mark writes a whiteout: an empty file whose name says what is hidden.
func (p *packer) mark(name string) error {
	return p.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600})
}

func (p *packer) directory(header *tar.Header, name string) error {
	f, err := p.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()

	opaque, err := attributes(f, header)
	if err != nil {
		return err
	}
	if err := p.tar.WriteHeader(header); err != nil || !opaque {
		return err
	}

	return p.mark(path.Join(name, ".wh..wh..opq"))
}

func (p *packer) file(header *tar.Header, name string) error {
	f, err := p.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()

	if _, err := attributes(f, header); err != nil {
		return err
	}
	if err := p.tar.WriteHeader(header); err != nil {
		return err
	}

	_, err = io.Copy(p.tar, f)
	return err
}

// attributes adds the extended attributes of an open file to its header. Those of overlayfs are left out; one
// of them says that a directory is opaque.
func attributes(f *os.File, header *tar.Header) (opaque bool, err error) {
	fd := int(f.Fd())
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, list)
	if errors.Is(err, unix.ENOTSUP) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("list attributes: %w", err)
	}

	for name := range bytes.SplitSeq(bytes.TrimRight(list[:n], "\x00"), []byte{0}) {
		key := string(name)
		if key == "trusted.overlay.opaque" {
			opaque = true
		}
		if key == "" || strings.HasPrefix(key, "trusted.overlay.") {
			continue
		}

		value := make([]byte, 64<<10)
		size, err := unix.Fgetxattr(fd, key, value)
		if err != nil {
			return false, fmt.Errorf("attribute %s: %w", key, err)
		}
		if header.PAXRecords == nil {
			header.PAXRecords = make(map[string]string)
		}

		header.PAXRecords["SCHILY.xattr."+key] = string(value[:size])
	}

	return opaque, nil
}
