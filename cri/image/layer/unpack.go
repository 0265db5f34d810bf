// Package layer unpacks the layers of images into overlayfs lower directories: whiteouts become what overlayfs understands, and no name,
// link or device in a layer, however hostile, reaches outside the directory (OCI image-spec layer.md).
package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Result is what Unpack tells about a layer.
type Result struct {
	Bytes, Inodes int64

	implicit []string // directories that the layer needs but does not describe: their owner and mode are those of the layer below
	links    []link   // hard links to files of a layer below
}

type link struct{ name, target string }

// Unpack fetches, verifies, decompresses and unpacks a layer in one pass into dir, which must not exist. After an error, dir is worth nothing.
// A layer with parents then needs Settle.
func Unpack(ctx context.Context, dir string, source Source) (result Result, err error) {
	if !source.Digest.Algorithm().Available() || !source.DiffID.Algorithm().Available() {
		return result, fmt.Errorf("unknown digest algorithm in %s or %s", source.Digest, source.DiffID)
	}
	if !known(source.MediaType) {
		return result, fmt.Errorf("media type %s is not known as a layer", source.MediaType)
	}
	ctx, cancel := context.WithCancel(ctx)
	blob := startStage(ctx, source.Blob, source.Digest.Algorithm().Hash())
	defer func() { cancel(); <-blob.done }()
	plain, err := decompress(blob)
	if err != nil {
		return result, fmt.Errorf("decompress: %w", err)
	}
	content := startStage(ctx, plain, source.DiffID.Algorithm().Hash())
	defer func() { cancel(); <-content.done; plain.Close() }()

	t, err := newTree(dir)
	if err != nil {
		return result, err
	}
	defer t.close()
	if err := t.unpack(ctx, tar.NewReader(content)); err != nil {
		return result, err
	}
	if err := content.verify("unpacked layer", source.DiffID); err != nil {
		return result, err
	}
	return t.result, blob.verify("blob", source.Digest)
}

// known tells the media types of layers: all of OCI and Docker are tar, plain or compressed. Foreign (non-distributable) ones are those of Windows.
func known(mediaType string) bool {
	switch {
	case mediaType == "":
		return true
	case strings.Contains(mediaType, "foreign"), strings.Contains(mediaType, "encrypted"):
		return false
	case strings.HasPrefix(mediaType, "application/vnd.oci.image.layer."):
		return true
	}
	return strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.")
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	aufsMeta = ".wh..wh." // names of aufs' own, which mean nothing here
)

func (t *tree) unpack(ctx context.Context, reader *tar.Reader) error {
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return t.finish()
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		if header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := t.entry(header, contentReader{ctx, reader}); err != nil {
			return fmt.Errorf("unpack %q: %w", header.Name, err)
		}
	}
}

// contentReader ends with its context, as the layer's stream does: the holes of a sparse file are not read from there, and may be of any size.
type contentReader struct {
	ctx     context.Context
	content io.Reader
}

func (c contentReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.content.Read(p)
}

// entry unpacks one entry. Names are below the layer's root, whatever they say: "/x" and "../x" are x.
func (t *tree) entry(header *tar.Header, content io.Reader) error {
	if strings.ContainsRune(header.Name, 0) || strings.ContainsRune(header.Linkname, 0) {
		return errors.New("name with a zero byte")
	}
	name := path.Clean("/" + header.Name)[1:]
	if name == "" {
		if header.Typeflag != tar.TypeDir {
			return errors.New("the layer's root is no directory")
		}
		return t.root(header)
	}
	base := path.Base(name)
	parent, err := t.dir(parentOf(name))
	if err != nil {
		return err
	}
	if base == opaque {
		return t.makeOpaque(parent)
	}
	if strings.HasPrefix(base, aufsMeta) {
		return nil
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		return t.whiteout(parent, hidden)
	}
	return t.create(parent, name, base, header, content)
}

// parentOf is "" for what is in the root.
func parentOf(name string) string {
	dir, _ := path.Split(name)
	return strings.TrimSuffix(dir, "/")
}

func (t *tree) create(parent int, name, base string, h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return t.directory(parent, name, base, h)
	}
	replaced, err := t.clear(parent, base)
	if err != nil {
		return err
	}
	if replaced {
		t.forget(name)
		if parent, err = t.dir(parentOf(name)); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeGNUSparse:
		return t.file(parent, base, h, content)
	case tar.TypeLink:
		return t.hardlink(parent, name, base, path.Clean("/" + h.Linkname)[1:])
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, parent, base); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if done, err := t.device(parent, base, h); err != nil || !done {
			return err
		}
	default:
		return fmt.Errorf("entry of unknown kind %q", h.Typeflag)
	}
	t.result.Inodes++
	return t.describe(parent, base, h)
}

// device makes a device node or FIFO. A node that this process may not make is left out, as every container gets its own /dev.
func (t *tree) device(parent int, base string, h *tar.Header) (done bool, err error) {
	mode, dev := uint32(unix.S_IFIFO), uint64(0)
	switch h.Typeflag {
	case tar.TypeChar:
		mode, dev = unix.S_IFCHR, unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		if dev == 0 {
			return false, errors.New("character device 0:0 would hide a file of the layer below")
		}
	case tar.TypeBlock:
		mode, dev = unix.S_IFBLK, unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	}
	err = unix.Mknodat(parent, base, mode|0o600, int(dev))
	if errors.Is(err, unix.EPERM) && mode != unix.S_IFIFO {
		return false, nil
	}
	return err == nil, err
}

func (t *tree) file(parent int, base string, h *tar.Header, content io.Reader) error {
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := t.copy(fd, content)
	if err != nil {
		return err
	}
	if n != h.Size {
		return fmt.Errorf("%d bytes, want %d", n, h.Size)
	}
	t.result.Bytes += (n + 4095) &^ 4095
	t.result.Inodes++
	return t.describeFile(fd, h)
}

// copy writes by plain system calls: an os.File for each of ten thousand small files would cost as much as the files.
func (t *tree) copy(fd int, content io.Reader) (total int64, err error) {
	for {
		n, err := fill(content, t.buffer)
		for rest := t.buffer[:n]; len(rest) > 0; {
			written, err := unix.Write(fd, rest)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return total, os.NewSyscallError("write", err)
			}
			rest, total = rest[written:], total+int64(written)
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
