// Package archive reads and writes archives of images, as docker save, nerdctl save, skopeo and buildx write
// them: the OCI image layout (image-spec image-layout.md) and Docker's older form, plain or compressed. The
// content of an archive is served by digest, as a registry serves it.
package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/trivet-node/trivet/cri/image/layer"
)

// Archive is an archive whose files are in a directory, by number: no name in it is used for a path.
type Archive struct {
	dir     string
	files   map[string]file // by cleaned name; of several entries of one name, the last
	blobs   map[digest.Digest]file
	entries int
}

// file is a file of the archive. A link has only the name that it leads to.
type file struct {
	number int
	size   int64
	digest digest.Digest
	link   string
}

const (
	maxEntries = 1 << 16
	maxName    = 1024
	maxIndex   = 8 << 20 // of index.json, manifest.json and manifests
	maxLinks   = 8
)

// Open reads an archive and writes its files into dir, which must exist. The caller removes dir.
func Open(ctx context.Context, from io.Reader, dir string) (*Archive, error) {
	plain, err := layer.Decompress(from)
	if err != nil {
		return nil, fmt.Errorf("decompress archive: %w", err)
	}
	defer plain.Close()

	a := &Archive{dir: dir, files: make(map[string]file), blobs: make(map[digest.Digest]file)}
	reader := tar.NewReader(plain)
	for {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		if err := a.entry(ctx, header, reader); err != nil {
			return nil, fmt.Errorf("read %.100q from archive: %w", header.Name, err)
		}
	}

	if len(a.files) == 0 {
		return nil, errors.New("the archive is empty")
	}

	return a, nil
}

func (a *Archive) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	if len(h.Name) > maxName || len(h.Linkname) > maxName {
		return errors.New("name is too long")
	}

	a.entries++
	if a.entries > maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}

	name := clean(h.Name)

	// Directories are not needed, and other kinds of files have no content to serve.
	switch h.Typeflag {
	case tar.TypeReg:
		// A few bytes could stand for any number of zeros.
		if isSparse(h) {
			return errors.New("sparse file")
		}

		f, err := a.write(ctx, content)
		if err != nil {
			return err
		}

		a.files[name] = f
		a.blobs[f.digest] = f

	case tar.TypeSymlink:
		a.files[name] = file{link: clean(path.Join(path.Dir(name), h.Linkname))}
	case tar.TypeLink:
		a.files[name] = file{link: clean(h.Linkname)}
	}

	return nil
}

func clean(name string) string { return path.Clean("/" + name)[1:] }

func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// write writes a file into the directory and computes its digest.
func (a *Archive) write(ctx context.Context, content io.Reader) (f file, err error) {
	f.number = a.entries
	out, err := os.OpenFile(a.path(f), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sum := digest.Canonical.Digester()
	f.size, err = io.Copy(io.MultiWriter(out, sum.Hash()), untilDone{ctx, content})
	f.digest = sum.Digest()
	return f, err
}

func (a *Archive) path(f file) string { return filepath.Join(a.dir, strconv.Itoa(f.number)) }

// untilDone is a reader that ends with its context.
type untilDone struct {
	ctx  context.Context
	from io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.from.Read(p)
}

// find returns a file by its name; it follows links.
func (a *Archive) find(name string) (file, error) {
	at := clean(name)
	for range maxLinks {
		f, ok := a.files[at]
		if !ok {
			return f, fmt.Errorf("the archive has no file %.100q", name)
		}
		if f.link == "" {
			return f, nil
		}

		at = f.link
	}

	return file{}, fmt.Errorf("too many links lead to %.100q in the archive", name)
}

// read returns a small file.
func (a *Archive) read(f file) ([]byte, error) {
	if f.size > maxIndex {
		return nil, fmt.Errorf("%d bytes in the place of a manifest; at most %d are read", f.size, maxIndex)
	}
	return os.ReadFile(a.path(f))
}
