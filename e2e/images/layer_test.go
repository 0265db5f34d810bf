package images

import (
	"archive/tar"
	"io"
	"slices"
	"testing"
)

func TestEqualFilesMakeAnEqualLayerWithAllParents(t *testing.T) {
	files := []file{
		{path: "tmp/", mode: 0o1777},
		{path: "usr/bin/x", mode: 0o755, data: []byte("program")},
		{path: "usr/bin/y", mode: 0o755, hard: "usr/bin/x"},
		{path: "x", link: "usr/bin/x"},
	}

	one, err := makeLayer(files)
	if err != nil {
		t.Fatal(err)
	}

	two, err := makeLayer(files)
	if err != nil {
		t.Fatal(err)
	}

	first, _ := one.Digest()
	second, _ := two.Digest()
	if first != second {
		t.Errorf("digests %s and %s of equal files", first, second)
	}

	r, err := one.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}

		names = append(names, h.Name)
	}

	if want := []string{
		"tmp/", "usr/", "usr/bin/", "usr/bin/x", "usr/bin/y", "x",
	}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
}

func TestAMissingSourceIsNamed(t *testing.T) {
	if _, err := makeLayer([]file{{path: "a", source: "/no/such/file"}}); err == nil {
		t.Error("no error")
	}
}
