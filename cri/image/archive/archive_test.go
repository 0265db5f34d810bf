package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func tarOf(tb testing.TB, headers []tar.Header, bodies ...string) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, h := range headers {
		if i < len(bodies) {
			h.Size = int64(len(bodies[i]))
		}
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if i < len(bodies) {
			w.Write([]byte(bodies[i]))
		}
	}

	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}

	return b.Bytes()
}

func TestArchivesAreBounded(t *testing.T) {
	long := tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("n", maxName+1)}
	loop := []tar.Header{
		{Typeflag: tar.TypeSymlink, Name: "manifest.json", Linkname: "a"},
		{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "./manifest.json"},
	}

	_, err := Open(t.Context(), bytes.NewReader(tarOf(t, []tar.Header{long})), t.TempDir())
	if err == nil || len(err.Error()) > 500 {
		t.Errorf("long name: %.600v", err)
	}

	a, err := Open(t.Context(), bytes.NewReader(tarOf(t, loop)), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Images(); err == nil || !strings.Contains(err.Error(), "too many links") {
		t.Errorf("links in a circle: %v", err)
	}
}

func TestBlobIsOpenedOnlyWithItsSize(t *testing.T) {
	data := tarOf(t, []tar.Header{{Typeflag: tar.TypeReg, Name: "blob"}}, "content")
	a, err := Open(t.Context(), bytes.NewReader(data), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}

	i := Image{archive: a}
	if _, err := i.Blob(t.Context(), digest.FromString("content"), 6); err == nil {
		t.Error("a blob of another size was opened")
	}

	b, err := i.Blob(t.Context(), digest.FromString("content"), 7)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	if got, err := io.ReadAll(b); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestOfSeveralEntriesOfANameTheLastCounts(t *testing.T) {
	regular := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	headers := []tar.Header{regular("a"), regular("./a"), regular("b")}
	dir := t.TempDir()
	a, err := Open(t.Context(), bytes.NewReader(tarOf(t, headers, "first", "second", "third")), dir)
	if err != nil {
		t.Fatal(err)
	}

	for name, want := range map[string]string{"a": "second", "b": "third"} {
		f, err := a.find(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.read(f); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestBrokenTransferIsAnError(t *testing.T) {
	data := tarOf(t, []tar.Header{{Typeflag: tar.TypeReg, Name: "blob"}}, strings.Repeat("x", 100_000))
	broken := errors.New("broken")
	from := io.MultiReader(bytes.NewReader(data[:50_000]), failing{broken})
	if _, err := Open(t.Context(), from, t.TempDir()); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

// readAll reads what the images of an archive begin with.
func readAll(t *testing.T, a *Archive) {
	list, err := a.Images()
	if err != nil {
		return
	}

	for _, i := range list {
		m, err := i.Manifest(t.Context())
		if err == nil && len(m.Content) > maxIndex {
			t.Errorf("%s: a manifest of %d bytes", i, len(m.Content))
		}
		if blob, err := i.Blob(t.Context(), m.Digest, int64(len(m.Content))); err == nil {
			blob.Close()
		}
	}
}

// Whatever an archive holds, it is written into its directory, by number, and nothing panics.
func FuzzArchive(f *testing.F) {
	manifest := `[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`
	headers := []tar.Header{
		{Typeflag: tar.TypeReg, Name: "manifest.json"},
		{Typeflag: tar.TypeReg, Name: "../c"},
	}

	f.Add(tarOf(f, headers, manifest, "{}"))
	headers = []tar.Header{{Typeflag: tar.TypeReg, Name: "index.json"}}
	f.Add(tarOf(f, headers, `{"manifests":[{"digest":"sha256:a"}]}`))

	content := `{"schemaVersion":2,"config":{"digest":"sha256:a"}}`
	headers = append(headers, tar.Header{Typeflag: tar.TypeReg, Name: "blob"})
	index := fmt.Sprintf(`{"manifests":[{"digest":%q,"annotations":{"io.containerd.image.name":"a:1"}}]}`,
		digest.FromString(content))
	f.Add(tarOf(f, headers, index, content))
	f.Fuzz(func(t *testing.T, data []byte) {
		base := t.TempDir()
		dir := filepath.Join(base, "dir")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if a, err := Open(t.Context(), bytes.NewReader(data), dir); err == nil {
			readAll(t, a)
		}
		if list, err := os.ReadDir(base); err != nil || len(list) != 1 {
			t.Fatalf("beside the archive: %v, %v", list, err)
		}
	})
}
