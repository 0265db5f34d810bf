package layer

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// Source is a layer's blob as a registry serves it.
type Source struct {
	Blob io.Reader

	// MediaType says whether the layer is of a kind that can be unpacked. The compression is read from the
	// content.
	MediaType string

	Digest digest.Digest // of the blob
	DiffID digest.Digest // of the tar stream in it; "" if it is not known
	Size   int64         // of the blob; only UnpackFile needs it

	// Tape, if it is not nil, gets the tape of the layer. If Result.Taped is not set then, it is of no use.
	Tape io.Writer
}

const (
	chunkSize  = 256 << 10
	chunksHeld = 4 // between two stages
)

// stage is one step of a pipeline: a goroutine reads the source and hashes, while the reader of the stage
// works on what came before. Chunks are used again, so a layer of any size costs a megabyte.
type stage struct {
	full, free chan []byte
	current    []byte // being read; part of whole
	whole      []byte
	err        error // of the source; set before full is closed
	hash       hash.Hash
	done       chan struct{}
	ctx        context.Context
}

// startStage begins to read source, until that or ctx ends. The caller must call stop.
func startStage(ctx context.Context, source io.Reader, h hash.Hash) *stage {
	s := &stage{
		full: make(chan []byte, chunksHeld),
		free: make(chan []byte, chunksHeld),
		hash: h,
		done: make(chan struct{}),
		ctx:  ctx,
	}

	for range chunksHeld {
		s.free <- make([]byte, chunkSize)
	}

	go s.pump(source)
	return s
}

// stop ends the stage by cancel, which ends its context, and waits for its goroutine.
func (s *stage) stop(cancel context.CancelFunc) {
	cancel()
	<-s.done
}

func (s *stage) pump(source io.Reader) {
	defer close(s.done)
	defer close(s.full)

	for {
		var chunk []byte
		select {
		case chunk = <-s.free:
		case <-s.ctx.Done():
			s.err = context.Cause(s.ctx)
			return
		}

		// Hashing happens here, so that the reader's goroutine does not wait for it.
		n, err := fill(source, chunk)
		if n > 0 {
			s.hash.Write(chunk[:n])
			select {
			case s.full <- chunk[:n]:
			case <-s.ctx.Done():
				s.err = context.Cause(s.ctx)
				return
			}
		}

		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			s.err = err
			return
		}
	}
}

// fill reads until a quarter of the chunk is filled. Unlike io.ReadAtLeast it returns the source's own error.
func fill(source io.Reader, chunk []byte) (n int, err error) {
	for n < chunkSize/4 && err == nil {
		var m int
		m, err = source.Read(chunk[n:])
		n += m
	}
	return n, err
}

// Read returns what the source gave, and its error at the end.
func (s *stage) Read(p []byte) (int, error) {
	if len(s.current) == 0 {
		if s.whole != nil {
			s.free <- s.whole[:chunkSize]
			s.whole = nil
		}

		chunk, ok := <-s.full
		if !ok {
			if s.err != nil {
				return 0, s.err
			}

			return 0, io.EOF
		}

		s.current = chunk
		s.whole = chunk
	}

	n := copy(p, s.current)
	s.current = s.current[n:]
	return n, nil
}

// verify reads the rest of the stage, so that everything is hashed, and compares with the digest, if one is
// known.
func (s *stage) verify(what string, want digest.Digest) error {
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{s}); err != nil {
		return err
	}
	if want == "" {
		return nil
	}
	if got := digest.NewDigest(want.Algorithm(), s.hash); got != want {
		return fmt.Errorf("%s has digest %s, want %s", what, got, want)
	}
	return nil
}

// Decompress returns the content of a stream that may be compressed by gzip or zstd. It looks at the first
// bytes, because the media types of registries and build tools are not always right. The caller closes the
// result.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}

	switch {
	case len(head) >= 2 && head[0] == 0x1f && head[1] == 0x8b:
		return gzip.NewReader(b)
	case len(head) == 4 && isZstd(head):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}

		return z.IOReadCloser(), nil
	}

	return io.NopCloser(b), nil
}

// isZstd reports whether head begins one of the two kinds of frames that zstd has (RFC 8878 section 3.1):
// some tools begin with a skippable one.
func isZstd(head []byte) bool {
	magic := binary.LittleEndian.Uint32(head)
	return magic == 0xfd2fb528 || magic&^0xf == 0x184d2a50
}
