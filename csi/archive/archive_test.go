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
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func headerFor(access string, size int64) Header {
	return Header{
		ID:      strings.Repeat("A", 26),
		Volume:  "pvc-1",
		Node:    "node-a",
		Created: time.Unix(1700000000, 0).UTC(),
		Access:  access,
		Size:    size,
		Backend: "btrfs",
	}
}

// must fails the test with the first error there is.
func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// makeTree makes files of all kinds that need no privileges.
func makeTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t,
		os.MkdirAll(at("a/b/c"), 0o750),
		os.WriteFile(at("a/b/c/file"), []byte("text"), 0o640),
		os.WriteFile(at("a/empty"), nil, 0o600),
		os.WriteFile(at("odd \xff\n name"), bytes.Repeat([]byte("x"), 1000), 0o600),
		os.Symlink("/etc/passwd", at("absolute")),
		os.Symlink("../../outside", at("a/relative")),
		os.Link(at("a/b/c/file"), at("z-link")),
		unix.Mkfifo(at("fifo"), 0o622),
		os.Chmod(at("a"), 0o2771),
		unix.Setxattr(at("a/empty"), "user.note", []byte("a\x00b"), 0),
	)

	holes, err := os.Create(at("holes"))
	must(t, err)
	_, first := holes.WriteAt([]byte("first"), 1<<20)
	_, second := holes.WriteAt([]byte("second"), 3<<20)
	must(t, first, second, holes.Truncate(4<<20), holes.Close())
	old := time.Unix(1000000000, 123456789)
	for _, name := range []string{"a/b", "a/b/c/file", "."} {
		must(t, os.Chtimes(at(name), old, old))
	}
	return dir
}

// describe returns all that an archive keeps of a tree, one file a line.
func describe(t testing.TB, dir string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		attributes, err := attributes(path)
		must(t, err)

		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			must(t, err)
			sparse := st.Blocks*512 < 1<<20
			content = fmt.Sprintf("%d bytes, sparse %t, %x", len(data), sparse, bytes.Trim(data, "\x00"))
		case unix.S_IFLNK:
			content, err = os.Readlink(path)
			must(t, err)
		}

		links := st.Nlink
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			links = 0
		}
		fmt.Fprintf(&text, "%q %o %d:%d %d links %v %x %q %v\n", strings.TrimPrefix(path, dir), st.Mode,
			st.Uid, st.Gid, links, st.Mtim, st.Rdev, content, attributes)
		return nil
	})
	must(t, err)
	return text.String()
}

func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, unix.EISDIR) {
		f, err = os.Open(path)
	}
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func write(t testing.TB, h Header, content string) []byte {
	t.Helper()
	var stream bytes.Buffer
	must(t, Write(t.Context(), &stream, h, open(t, content)))
	return stream.Bytes()
}

func extract(ctx context.Context, stream []byte, content *os.File) error {
	r, err := NewReader(ctx, bytes.NewReader(stream))
	if err != nil {
		return err
	}
	return r.Extract(ctx, content)
}

func TestTreeIsTheSameAfterwards(t *testing.T) {
	dir := makeTree(t)
	stream := write(t, headerFor(Mount, 1<<30), dir)
	if len(stream) > 1<<20 {
		t.Errorf("%d bytes: there are holes", len(stream))
	}

	to := t.TempDir()
	must(t, extract(t.Context(), stream, open(t, to)))
	if want, got := describe(t, dir), describe(t, to); want != got {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestSocketsAreLeftOut(t *testing.T) {
	dir, to := t.TempDir(), t.TempDir()
	must(t, unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o600, 0))
	must(t, extract(t.Context(), write(t, headerFor(Mount, 1<<30), dir), open(t, to)))
	if entries, err := os.ReadDir(to); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestDeviceIsTheSameAfterwards(t *testing.T) {
	const size = 8 << 20
	for name, data := range map[string]map[int64]string{
		"empty":      {},
		"begin, end": {0: "begin", size - 4096: strings.Repeat("e", 4096)},
		"middle":     {4096 * 100: "middle"},
		"full":       {0: strings.Repeat("f", size)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
			must(t, os.WriteFile(from, nil, 0o600), os.Truncate(from, size), os.WriteFile(to, nil, 0o600))
			for offset, text := range data {
				_, err := open(t, from).WriteAt([]byte(text), offset)
				must(t, err)
			}

			stream := write(t, headerFor(Block, size), from)
			if err := extract(t.Context(), stream, open(t, to)); err == nil {
				t.Error("it is in a volume that is smaller")
			}

			must(t, os.Truncate(to, 2*size))
			must(t, extract(t.Context(), stream, open(t, to)))
			want, err := os.ReadFile(from)
			must(t, err)
			got, err := os.ReadFile(to)
			must(t, err)
			if !bytes.Equal(append(want, make([]byte, size)...), got) {
				t.Error("it is another")
			}
		})
	}
}

func TestTarReadsIt(t *testing.T) {
	stream := write(t, headerFor(Mount, 1<<30), makeTree(t))
	var names []string
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		names = append(names, header.Name)
	}
	if names[0] != "volume.json" || names[len(names)-2] != "content/" || names[len(names)-1] != "end.json" {
		t.Errorf("entries %q", names)
	}
}

func TestWriteEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the driver has ended")
	cancel(gone)
	err := Write(ctx, io.Discard, headerFor(Mount, 1<<30), open(t, makeTree(t)))
	if !errors.Is(err, gone) {
		t.Error(err)
	}
}
