package tape_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/trivet-node/trivet/cri/image/tape"
)

// A tape comes from the disk, which may be damaged.
func FuzzPlay(f *testing.F) {
	literal := append(binary.AppendUvarint(nil, 3<<1), "abc"...)
	f.Add(literal)
	f.Add(append(literal, binary.AppendUvarint(binary.AppendUvarint(nil, 4<<1|1), 1)...))
	f.Add(binary.AppendUvarint(nil, 1<<63))
	f.Fuzz(func(t *testing.T, pieces []byte) {
		dir, files := t.TempDir(), t.TempDir()
		var b bytes.Buffer
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(pieces); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}

		for _, content := range [][]byte{pieces, b.Bytes()} {
			file := filepath.Join(dir, "tape")
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}

			var made counter
			err := tape.Play(t.Context(), file, files, &made)
			if err == nil && int(made) > len(pieces) {
				t.Errorf("%d bytes of %d without any file", made, len(pieces))
			}
		}
	})
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func TestRecorderReturnsWhatItReads(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	r := tape.NewRecorder(bytes.NewReader(data), io.Discard)
	r.BeginFile()
	head := make([]byte, 10)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}

	r.EndFile(1, 10)
	rest, err := io.ReadAll(r)
	if got := append(head, rest...); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestFileOfAnotherSizeEndsTheTape(t *testing.T) {
	r := tape.NewRecorder(bytes.NewReader(make([]byte, 100)), io.Discard)
	r.BeginFile()
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}

	r.EndFile(1, 1000)
	if err := r.Close(); err == nil {
		t.Error("the tape says that it is whole")
	}
}
