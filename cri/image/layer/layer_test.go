package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

type entry struct {
	tar.Header
	body string
}

func dir(name string, mode int64) entry {
	return entry{Header: tar.Header{
		Typeflag: tar.TypeDir,
		Name:     name,
		Mode:     mode,
		ModTime:  time.Unix(1000, 0),
	}}
}

func file(name, body string) entry {
	return entry{tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Mode:     0o644,
		ModTime:  time.Unix(1000, 0),
	}, body}
}

func linked(kind byte, name, target string) entry {
	return entry{Header: tar.Header{
		Typeflag: kind,
		Name:     name,
		Linkname: target,
		Mode:     0o777,
	}}
}

func archive(tb testing.TB, entries ...entry) []byte {
	tb.Helper()
	data, err := pack(entries...)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func pack(entries ...entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.body))

		// What does not say its owner belongs to the user who runs the test, who need not be root then.
		if e.Uid == 0 && e.Gid == 0 {
			e.Uid = os.Getuid()
			e.Gid = os.Getgid()
		}

		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			return nil, err
		}
	}

	err := w.Close()
	return b.Bytes(), err
}

func unpackTo(tb testing.TB, dir string, data []byte) (Result, error) {
	tb.Helper()
	d := digest.FromBytes(data)
	return Unpack(context.Background(), dir, Source{Blob: bytes.NewReader(data), Digest: d, DiffID: d})
}

// hostile are layers that try to change what is outside; OUTSIDE stands for its path. Some are refused.
var hostile = []struct {
	name    string
	entries []entry
	refused bool
}{
	{"dot dot", []entry{file("../outside/x", "evil"), file("a/../../outside/x", "evil")}, false},
	{"absolute", []entry{file("/outside/x", "evil")}, false},
	{"symlink up", []entry{linked(tar.TypeSymlink, "l", "../outside"), file("l/x", "evil")}, false},
	{"symlink absolute", []entry{linked(tar.TypeSymlink, "l", "OUTSIDE"), file("l/x", "evil")}, false},
	{
		"symlink to dot dot",
		[]entry{linked(tar.TypeSymlink, "l", ".."), file("l/outside/x", "evil")},
		false,
	},
	{"through proc", []entry{symlink("l", "/proc/self/root/OUTSIDE"), file("l/x", "evil")}, false},
	{"file over symlink", []entry{linked(tar.TypeSymlink, "l", "OUTSIDE/x"), file("l", "evil")}, false},
	{"hard link up", []entry{linked(tar.TypeLink, "l", "../outside/x"), file("l", "evil")}, false},
	{
		"hard link by symlink",
		[]entry{
			linked(tar.TypeSymlink, "d", "../outside"),
			linked(tar.TypeLink, "l", "d/x"),
			file("l", "evil"),
		},
		false,
	},
	{"directory over symlink", []entry{linked(tar.TypeSymlink, "l", "OUTSIDE"), dir("l", 0o777)}, false},
	{"whiteout up", []entry{file(".wh...", "")}, true},
	{"whiteout of nothing", []entry{file(".wh.", "")}, true},
	{"overlay attribute", []entry{redirecting()}, false},
	{"links in a circle", []entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "evil")}, true},
	{"name that is too long", []entry{file(strings.Repeat("d/", unix.PathMax/2)+"f", "evil")}, true},
	{"link that is too long", []entry{symlink("l", dots), file("l/x", "evil")}, true},
	{"two long links", []entry{symlink("l", longName), symlink("m", "l/"+longName), file("m/x", "")}, true},
	{"whiteout device", []entry{whiteoutDevice}, true},
	{"file as directory", []entry{file("f", ""), file("f/x", "")}, true},
	{"unknown kind", []entry{{Header: tar.Header{Typeflag: 'Z', Name: "z"}}}, true},
}

// Names that links make longer than the kernel takes.
var (
	longName = strings.Repeat(strings.Repeat("n", 200)+"/", 15)
	dots     = strings.Repeat("./", 1100) + "d"
)

var whiteoutDevice = entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null"}}

// redirecting is a file with an attribute by which overlayfs looks elsewhere.
func redirecting() entry {
	e := file("f", "")
	e.PAXRecords = map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"}
	return e
}

// Whatever a hostile layer says, what is beside its directory stays as it was.
func TestHostileLayersStayInside(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			outside := filepath.Join(base, "outside")
			if err := os.Mkdir(outside, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(outside+"/x", []byte("good"), 0o600); err != nil {
				t.Fatal(err)
			}

			entries := slices.Clone(c.entries)
			for i := range entries {
				entries[i].Linkname = strings.Replace(entries[i].Linkname, "OUTSIDE", outside, 1)
			}
			_, err := unpackTo(t, filepath.Join(base, "fs"), archive(t, entries...))
			if (err != nil) != c.refused {
				t.Errorf("error %v, want refused %v", err, c.refused)
			}

			data, err := os.ReadFile(outside + "/x")
			info, _ := os.Stat(outside)
			list, _ := os.ReadDir(outside)
			if err != nil || string(data) != "good" || info.Mode().Perm() != 0o700 || len(list) != 1 {
				t.Fatalf("outside was changed: %q %v %v %v", data, info.Mode(), list, err)
			}
		})
	}
}

// sparse is a file that is one hole, in GNU's old format, which archive/tar reads but does not write.
func sparse(t *testing.T, name string, size int64) []byte {
	t.Helper()
	data := archive(t, entry{Header: tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Mode:     0o644,
		Format:   tar.FormatGNU,
	}})

	data[156] = tar.TypeGNUSparse

	// The only piece: nothing, at the end.
	copy(data[386:], fmt.Sprintf("%011o\x00%011o", size, 0))
	copy(data[483:], fmt.Sprintf("%011o", size))
	copy(data[148:156], "        ")
	sum := 0
	for _, b := range data[:512] {
		sum += int(b)
	}

	copy(data[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return data
}

func TestCancelledUnpackEndsInsideAHole(t *testing.T) {
	tree, err := newTree(filepath.Join(t.TempDir(), "fs"))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()

	ctx, cancel := context.WithCancel(t.Context())
	header := bytes.NewReader(sparse(t, "hole", 1<<30))
	err = tree.unpack(ctx, tar.NewReader(readerFunc(func(p []byte) (int, error) {
		cancel()
		return header.Read(p)
	})))
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "hole") {
		t.Errorf("error %v, want a cancellation that names the file", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestHolesStayHoles(t *testing.T) {
	root := filepath.Join(t.TempDir(), "fs")
	const size = 3 << 30
	data := sparse(t, "sparse", size)
	body := strings.Repeat("x", 100_000) + strings.Repeat("\x00", 1<<20) + "end"
	data = append(data[:512], archive(t, file("zeros", body), file("short", "\x00"))...)
	result, err := unpackTo(t, root, data)
	if err != nil {
		t.Fatal(err)
	}

	var st unix.Stat_t
	if err := unix.Stat(root+"/sparse", &st); err != nil || st.Size != size || st.Blocks*512 > 64<<10 {
		t.Errorf("sparse file: %d bytes, %d on the disk, %v", st.Size, st.Blocks*512, err)
	}
	if err := unix.Stat(root+"/zeros", &st); err != nil || st.Blocks*512 > 256<<10 {
		t.Errorf("file with zeros inside: %d on the disk, %v", st.Blocks*512, err)
	}

	for name, want := range map[string]string{"zeros": body, "short": "\x00"} {
		if got, err := os.ReadFile(root + "/" + name); err != nil || string(got) != want {
			t.Errorf("%s holds %d bytes, %v", name, len(got), err)
		}
	}

	if result.Bytes > 256<<10 {
		t.Errorf("the layer is said to take %d bytes", result.Bytes)
	}
}

func TestHolesWithoutEndAreRefused(t *testing.T) {
	tree, err := newTree(filepath.Join(t.TempDir(), "fs"))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	tree.holes = maxHoles - 1<<20
	err = tree.unpack(t.Context(), tar.NewReader(bytes.NewReader(sparse(t, "hole", 8<<30))))
	if err == nil || !strings.Contains(err.Error(), "hole") || !strings.Contains(err.Error(), "zeros") {
		t.Errorf("error %v, want one that names the file and the reason", err)
	}
}

func TestAttributesOfOverlayfsAreDropped(t *testing.T) {
	root := filepath.Join(t.TempDir(), "fs")
	impure := dir("d", 0o755)
	impure.PAXRecords = map[string]string{
		"SCHILY.xattr.user.overlay.impure":    "y",
		"SCHILY.xattr.trusted.overlay.opaque": "y",
	}

	result, err := unpackTo(t, root, archive(t, impure))
	if err != nil || result.Dropped != 2 {
		t.Errorf("%d attributes were dropped, %v; want 2", result.Dropped, err)
	}

	for _, name := range []string{"user.overlay.impure", "trusted.overlay.opaque"} {
		if n, err := unix.Getxattr(root+"/d", name, nil); err == nil {
			t.Errorf("%s is there, with %d bytes", name, n)
		}
	}
}
