package layer

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

func TestCompressionsAndDigests(t *testing.T) {
	plain := archive(t, file("a", strings.Repeat("content ", 100_000)))
	var zipped bytes.Buffer
	gz := gzip.NewWriter(&zipped)
	gz.Write(plain)
	gz.Close()
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}

	zstandard := encoder.EncodeAll(plain, nil)
	diff := digest.FromBytes(plain)
	for name, blob := range map[string][]byte{"plain": plain, "gzip": zipped.Bytes(), "zstd": zstandard} {
		t.Run(name, func(t *testing.T) {
			unpack := func(blob []byte, d, diff digest.Digest) error {
				_, err := Unpack(
					t.Context(),
					filepath.Join(t.TempDir(), "fs"),
					Source{Blob: bytes.NewReader(blob), Digest: d, DiffID: diff},
				)

				return err
			}
			if err := unpack(blob, digest.FromBytes(blob), diff); err != nil {
				t.Error(err)
			}
			if err := unpack(blob, digest.FromString("other"), diff); err == nil {
				t.Error("a wrong digest was accepted")
			}
			if err := unpack(blob, digest.FromBytes(blob), digest.FromString("other")); err == nil {
				t.Error("a wrong diff ID was accepted")
			}
			if err := unpack(blob[:len(blob)/2], digest.FromBytes(blob), diff); err == nil {
				t.Error("half a blob was accepted")
			}
		})
	}
}

func TestLayersOfSeveralFramesAreRead(t *testing.T) {
	plain := archive(t, file("a", strings.Repeat("content ", 100_000)))
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}

	half := len(plain) / 2
	frames := append(encoder.EncodeAll(plain[:half], nil), encoder.EncodeAll(plain[half:], nil)...)
	skippable := []byte{0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'}
	var members bytes.Buffer
	for _, part := range [][]byte{plain[:half], plain[half:]} {
		w := gzip.NewWriter(&members)
		w.Write(part)
		w.Close()
	}

	for name, blob := range map[string][]byte{
		"zstd frames":             frames,
		"zstd, a skippable first": append(bytes.Clone(skippable), frames...),
		"zstd, a skippable last":  append(bytes.Clone(frames), skippable...),
		"gzip members":            members.Bytes(),
	} {
		source := Source{
			Blob:   bytes.NewReader(blob),
			Digest: digest.FromBytes(blob),
			DiffID: digest.FromBytes(plain),
		}
		if _, err := Unpack(t.Context(), filepath.Join(t.TempDir(), "fs"), source); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
