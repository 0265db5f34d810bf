// Package layer unpacks the layers of images into overlayfs lower directories: whiteouts become what
// overlayfs understands, and no name, link or device in a layer, however hostile, reaches outside the
// directory (OCI image-spec layer.md).
package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image/tape"
)

// Result is what an unpacked layer takes, and what Complete needs to know about it.
type Result struct {
	Bytes, Inodes int64
	Dropped       int // attributes of overlayfs that were left out

	// Taped says that the layer has a tape, from which its stream can be made again.
	Taped bool

	dirs  *directories
	links []link // hard links to what may be in a layer below
}

type link struct{ name, target string }

func (r *Result) addDirectory() {
	r.Inodes++
	r.Bytes += blockSize
}

// Unpack fetches, verifies, decompresses and unpacks a layer in one pass into dir, which must not exist.
// After an error, dir must be removed. A layer with layers below it then needs Complete.
func Unpack(ctx context.Context, dir string, source Source) (result Result, err error) {
	diffs := digest.Canonical
	if source.DiffID != "" {
		diffs = source.DiffID.Algorithm()
	}
	if !source.Digest.Algorithm().Available() || !diffs.Available() {
		return result, fmt.Errorf("unknown digest algorithm in %s or %s", source.Digest, source.DiffID)
	}
	if !known(source.MediaType) {
		return result, fmt.Errorf("media type %q is not known as a layer", shorten(source.MediaType))
	}

	// Three goroutines work at once: one fetches and hashes, one decompresses and hashes, this one unpacks.
	ctx, cancel := context.WithCancel(ctx)
	blob := startStage(ctx, source.Blob, source.Digest.Algorithm().Hash())
	defer blob.stop(cancel)

	plain, err := Decompress(blob)
	if err != nil {
		return result, fmt.Errorf("decompress: %w", err)
	}

	content := startStage(ctx, plain, diffs.Hash())
	defer plain.Close()
	defer content.stop(cancel)

	t, err := newTree(dir)
	if err != nil {
		return result, err
	}
	defer t.close()

	if err := unpackTaped(ctx, t, content, source.Tape); err != nil {
		return result, err
	}

	// What follows the end of the tar stream is hashed, too: the digests are of everything.
	if err := content.verify("unpacked layer", source.DiffID); err != nil {
		return result, err
	}

	return t.result, blob.verify("blob", source.Digest)
}

// UnpackFile makes a layer of a blob that is not an archive, but the content of a file. The file has the
// given name, below the layer's root in any case.
func UnpackFile(ctx context.Context, dir, name string, source Source) (result Result, err error) {
	if !source.Digest.Algorithm().Available() {
		return result, fmt.Errorf("unknown digest algorithm in %s", source.Digest)
	}

	ctx, cancel := context.WithCancel(ctx)
	blob := startStage(ctx, source.Blob, source.Digest.Algorithm().Hash())
	defer blob.stop(cancel)

	t, err := newTree(dir)
	if err != nil {
		return result, err
	}
	defer t.close()

	header := &tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Mode:     0o644,
		Size:     source.Size,
	}
	if err := t.entry(header, blob, true); err != nil {
		return result, fmt.Errorf("file %q: %w", shorten(name), err)
	}
	if err := t.finish(); err != nil {
		return result, err
	}

	return t.result, blob.verify("blob", source.Digest)
}

// known reports whether a media type is that of a layer which can be unpacked: those of OCI and Docker are
// tar, plain or compressed. Foreign (non-distributable) ones are those of Windows.
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
	aufsMeta = ".wh..wh." // names that only aufs uses
)

// unpackTaped unpacks a stream, and records it if there is something to record it to.
func unpackTaped(ctx context.Context, t *tree, content io.Reader, to io.Writer) error {
	if to == nil {
		return t.unpack(ctx, tar.NewReader(content))
	}

	t.tape = tape.NewRecorder(content, to)
	if err := t.unpack(ctx, tar.NewReader(t.tape)); err != nil {
		return err
	}

	// A tape is of everything, as the digests are.
	if _, err := io.Copy(io.Discard, t.tape); err != nil {
		return err
	}

	t.result.Taped = t.tape.Close() == nil
	return nil
}

func (t *tree) unpack(ctx context.Context, reader *tar.Reader) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

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
		if err := t.entry(header, contentReader{ctx, reader}, false); err != nil {
			return fmt.Errorf("unpack %q: %w", shorten(header.Name), err)
		}
	}
}

// shorten returns a name as an error may show it: a layer can have names of a megabyte.
func shorten(name string) string {
	const most = 256
	if len(name) <= most {
		return name
	}
	return name[:most/2] + "..." + name[len(name)-most/2:]
}

// contentReader ends with its context, as the layer's stream does: the holes of a sparse file are not read
// from there, and may be of any size.
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

// entry unpacks one entry. All names are below the layer's root: "/x" and "../x" are x. With asIs, a name is
// never that of a whiteout.
func (t *tree) entry(header *tar.Header, content io.Reader, asIs bool) error {
	for _, name := range []string{header.Name, header.Linkname} {
		if strings.ContainsRune(name, 0) {
			return errors.New("name with a zero byte")
		}
		if len(name) >= unix.PathMax {
			return fmt.Errorf("name of %d bytes: %w", len(name), unix.ENAMETOOLONG)
		}
	}

	// The leading slash makes Clean drop every ".." that would lead out.
	name := path.Clean("/" + header.Name)[1:]
	if name == "" {
		if header.Typeflag != tar.TypeDir {
			return errors.New("the layer's root is not a directory")
		}

		return t.root(header)
	}

	t.closeUnneeded()
	base := path.Base(name)
	parent, err := t.dir(parentOf(name), true)
	if err != nil {
		return err
	}
	if asIs {
		return t.create(parent, name, base, header, content)
	}

	// Whiteouts are entries with a name that begins with .wh.
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

func (t *tree) create(parent openDirectory, name, base string, h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return t.directory(parent, base, h)
	case tar.TypeReg, '\x00', tar.TypeGNUSparse:
		return t.file(parent, base, h, content)
	case tar.TypeLink:
		return t.hardlink(parent, name, base, path.Clean("/" + h.Linkname)[1:])
	case tar.TypeSymlink:
		err := t.put(parent, base, func() error { return unix.Symlinkat(h.Linkname, parent.fd, base) })
		if err != nil {
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
	return t.describe(parent.fd, base, h)
}

// device makes a device node or FIFO. A node that this process may not make is left out, as every container
// gets its own /dev.
func (t *tree) device(parent openDirectory, base string, h *tar.Header) (done bool, err error) {
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

	err = t.put(parent, base, func() error { return unix.Mknodat(parent.fd, base, mode|0o600, int(dev)) })
	if errors.Is(err, unix.EPERM) && mode != unix.S_IFIFO {
		return false, nil
	}

	return err == nil, err
}
