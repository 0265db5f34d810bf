package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/trivet-node/trivet/cri/image/tape"
)

// taped unpacks a stream with a tape, and returns its directory.
func taped(t *testing.T, stream []byte) (dir string, result Result) {
	t.Helper()
	dir = t.TempDir()
	file, err := os.Create(filepath.Join(dir, "tape"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	result, err = Unpack(t.Context(), filepath.Join(dir, "fs"), tapedSource(stream, file))
	if err != nil {
		t.Fatal(err)
	}

	return dir, result
}

func tapedSource(stream []byte, to io.Writer) Source {
	return Source{
		Blob:   bytes.NewReader(stream),
		Digest: digest.FromBytes(stream),
		DiffID: digest.FromBytes(stream),
		Tape:   to,
	}
}

// played returns what is made of a tape.
func played(t *testing.T, dir string) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	err := tape.Play(t.Context(), filepath.Join(dir, "tape"), filepath.Join(dir, "fs"), &b)
	return b.Bytes(), err
}

// own returns a header that an unprivileged test may unpack.
func own(kind byte, name string, size int) tar.Header {
	return tar.Header{
		Typeflag: kind,
		Name:     name,
		Size:     int64(size),
		Mode:     0o755,
		Uid:      os.Getuid(),
		Gid:      os.Getgid(),
	}
}

// stream returns a tar stream of the headers, with x for content.
func stream(t *testing.T, format tar.Format, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Format = format
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, strings.NewReader(strings.Repeat("x", int(h.Size))), h.Size); err != nil {
			t.Fatal(err)
		}
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	return b.Bytes()
}

func TestStreamOfALayerIsMadeAgain(t *testing.T) {
	link := own(tar.TypeSymlink, "lib", 0)
	link.Linkname = "usr/lib"
	hard := own(tar.TypeLink, "hard", 0)
	hard.Linkname = "file"
	headers := []tar.Header{
		own(tar.TypeDir, "usr/lib/", 0),
		link,
		own(tar.TypeReg, "lib/through-a-link", 700),
		own(tar.TypeReg, "./file", 1),
		own(tar.TypeReg, "empty", 0),
		own(tar.TypeReg, "blocks", 3*512),
		own(tar.TypeReg, "large", 1_000_000),
		hard,
		own(tar.TypeReg, ".wh.gone", 3),
		own(tar.TypeReg, ".wh..wh..opq", 0),
		own(tar.TypeFifo, "fifo", 0),
	}
	long := strings.Repeat("n", 200)
	pax := own(tar.TypeReg, strings.Repeat("long/", 60)+long, 5)
	pax.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "n", "VENDOR.key": "value"}

	tail := append(bytes.Repeat([]byte{0}, 10_000), "what follows the end"...)
	for name, want := range map[string][]byte{
		"ustar":        stream(t, tar.FormatUSTAR, headers...),
		"GNU":          stream(t, tar.FormatGNU, append(headers, own(tar.TypeReg, long, 5))...),
		"PAX":          stream(t, tar.FormatPAX, append(headers, pax)...),
		"with a tail":  append(stream(t, tar.FormatPAX, headers...), tail...),
		"without end":  stream(t, tar.FormatPAX, headers[0])[:512],
		"no entry":     stream(t, tar.FormatPAX),
		"no byte":      {},
		"skipped file": stream(t, tar.FormatPAX, own(tar.TypeReg, ".wh..wh.plnk/1.2", 9000), headers[3]),
	} {
		t.Run(name, func(t *testing.T) {
			dir, result := taped(t, want)
			got, err := played(t, dir)
			if err != nil || !result.Taped || !bytes.Equal(got, want) {
				t.Errorf("taped %t, made %d bytes of %d, %v", result.Taped, len(got), len(want), err)
			}
		})
	}
}

func TestStreamWhoseFilesAreReplacedIsNotMadeAgain(t *testing.T) {
	again := archive(t, file("a", "one"), file("a", "two"))
	dir, _ := taped(t, again)
	if got, err := played(t, dir); err == nil && bytes.Equal(got, again) {
		t.Error("the content of a file that is gone was found")
	}
}

// holed returns the stream of a file with a hole (GNU tar's PAX format 1.0).
func holed(t *testing.T) []byte {
	t.Helper()
	h := own(tar.TypeReg, "sparse", 2*512)

	// archive/tar reads GNU.sparse but does not write it, so the name is changed afterwards.
	h.PAXRecords = map[string]string{
		"GNU.xparse.major":    "1",
		"GNU.xparse.minor":    "0",
		"GNU.xparse.name":     "sparse",
		"GNU.xparse.realsize": "4608",
	}

	plain := stream(t, tar.FormatPAX, h)
	pieces := append([]byte("1\n4096\n512\n"), make([]byte, 501)...)
	data := bytes.ReplaceAll(plain, []byte("GNU.xparse"), []byte("GNU.sparse"))
	return bytes.Replace(data, bytes.Repeat([]byte("x"), 512), pieces, 1)
}

func TestSparseStreamHasNoTape(t *testing.T) {
	if _, result := taped(t, holed(t)); result.Taped {
		t.Error("the stream has a tape")
	}
}

// What cannot be compressed would take as much room as the layer.
func TestTapeIsBounded(t *testing.T) {
	noise := make([]byte, 20<<20)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}

	dir, result := taped(t, append(stream(t, tar.FormatPAX, own(tar.TypeReg, "a", 1)), noise...))
	info, err := os.Stat(filepath.Join(dir, "tape"))
	if err != nil {
		t.Fatal(err)
	}
	if result.Taped || info.Size() > 16<<20 {
		t.Errorf("taped %t, %d bytes", result.Taped, info.Size())
	}
}

func TestTapeOfAnotherDirectoryIsNotPlayed(t *testing.T) {
	want := stream(t, tar.FormatPAX, own(tar.TypeReg, "a", 10))
	dir, _ := taped(t, want)
	file := filepath.Join(dir, "fs/a")
	if err := os.Rename(file, file+".kept"); err != nil {
		t.Fatal(err)
	}
	if got, err := played(t, dir); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a file that was moved is not found: %v", err)
	}

	if err := os.Remove(file + ".kept"); err != nil {
		t.Fatal(err)
	}
	if _, err := played(t, dir); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("without the file: %v", err)
	}
}
