package layer

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/trivet-node/trivet/internal/testenv"
)

// BenchmarkUnpack unpacks in memory, where the disk is no part of the figures.
func BenchmarkUnpack(b *testing.B) {
	random := make([]byte, 100<<20)
	rand.NewChaCha8([32]byte{1}).Read(random)
	b.Run("one file of 100 MB", func(b *testing.B) { benchmarkUnpack(b, file("big", string(random))) })
	var small []entry
	for i := range 11_000 {
		body := string(random[i*5000 : i*5000+3000+i%5000])
		small = append(small, file(fmt.Sprintf("src/d%03d/e%04d/f%05d.go", i/300, i/8, i), body))
	}
	b.Run("11000 small files", func(b *testing.B) { benchmarkUnpack(b, small...) })
}

func benchmarkUnpack(b *testing.B, entries ...entry) {
	testenv.Root(b)
	base := testenv.MemoryDir(b)
	data := archive(b, entries...)
	b.Run("without a tape", func(b *testing.B) { unpackAll(b, base, data, nil) })

	tape, err := os.Create(filepath.Join(base, "tape"))
	if err != nil {
		b.Fatal(err)
	}
	defer tape.Close()

	b.Run("with a tape", func(b *testing.B) { unpackAll(b, base, data, tape) })
}

func unpackAll(b *testing.B, base string, data []byte, tape *os.File) {
	d := digest.FromBytes(data)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		dir := filepath.Join(base, "fs")
		source := Source{Blob: bytes.NewReader(data), Digest: d, DiffID: d}
		if tape != nil {
			source.Tape = tape
		}

		if _, err := Unpack(context.Background(), dir, source); err != nil {
			b.Fatal(err)
		}

		b.StopTimer()
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}

		b.StartTimer()
	}
}
