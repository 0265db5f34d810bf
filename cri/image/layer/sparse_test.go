package layer

import (
	"archive/tar"
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// counted repeats one line, and counts.
type counted struct{ read int }

func (c *counted) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "1\n"[(c.read+i)%2]
	}
	c.read += len(p)
	return len(p), nil
}

// The map of a sparse file's pieces is part of its content: as long as the author likes, and held in memory
// (CVE-2025-58183).
func TestMapOfASparseFileIsBounded(t *testing.T) {
	var header bytes.Buffer
	err := tar.NewWriter(&header).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg,
		Name:     "sparse",
		Size:     8 << 30,
		Mode:     0o644,
		// archive/tar reads GNU.sparse but does not write it, so the name is changed afterwards.
		PAXRecords: map[string]string{
			"GNU.xparse.major":    "1",
			"GNU.xparse.minor":    "0",
			"GNU.xparse.name":     "sparse",
			"GNU.xparse.realsize": "1000",
		},
	})
	if err != nil {
		t.Fatal(err)
	}

	start := bytes.ReplaceAll(header.Bytes(), []byte("GNU.xparse"), []byte("GNU.sparse"))

	pieces := &counted{}
	_, err = Unpack(t.Context(), filepath.Join(t.TempDir(), "fs"), Source{
		Blob:   io.MultiReader(bytes.NewReader(start), bytes.NewReader([]byte("4000000000\n")), pieces),
		Digest: digest.FromString("never compared"),
		DiffID: digest.FromString("never compared"),
	})
	if err == nil {
		t.Error("a map without end was taken")
	}
	if pieces.read > 64<<20 {
		t.Errorf("%d bytes of it were read: %v", pieces.read, err)
	}
}
