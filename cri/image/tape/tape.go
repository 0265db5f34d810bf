// Package tape makes the tar stream of an unpacked layer again, byte by byte, so that an exported image keeps
// its ID. A tape is what the stream has beside the content of its files: headers, in their order and as they
// were written, and padding.
//
// A tape is a zstd stream of pieces, each with a number (binary.AppendUvarint) before it: n<<1 for n bytes of
// the tar stream, n<<1|1 for a file of n bytes, whose inode follows. A file is found by its inode, since it
// may have been moved to where it is by links in its name. Where that does not hold, as after a copy of the
// disk, the stream that is made is another one: the caller compares its digest.
package tape

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxTape bounds a tape, in bytes: those of real layers have some tens for each file.
	maxTape = 16 << 20

	// pieceSize is about how many bytes of the stream make a piece.
	pieceSize = 32 << 10
)

var (
	errTooLong = errors.New("tape is too long")
	errSparse  = errors.New("the stream has a file in another form than its content")
)

// Recorder makes a tape of what is read through it. It is not safe for concurrent use.
type Recorder struct {
	from io.Reader
	out  *zstd.Encoder

	// piece are bytes of the stream that are not on the tape yet.
	piece []byte

	// inFile says that what is read is the content of a file, of which skipped bytes were read.
	inFile  bool
	skipped int64

	// err is why there will be no tape. It does not concern the reader.
	err error
}

// NewRecorder returns a Recorder for a stream, which writes its tape to another.
func NewRecorder(from io.Reader, to io.Writer) *Recorder {
	r := &Recorder{from: from}
	r.out, r.err = zstd.NewWriter(
		&bounded{to: to, left: maxTape},
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(128<<10),
		zstd.WithLowerEncoderMem(true),
	)
	return r
}

// Read reads from the stream. What is read is on the tape, unless it is the content of a file.
func (r *Recorder) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if r.inFile {
		r.skipped += int64(n)
		return n, err
	}

	if r.err == nil {
		r.piece = append(r.piece, p[:n]...)
		if len(r.piece) >= pieceSize {
			r.flush()
		}
	}

	return n, err
}

// BeginFile says that what is read from here on is the content of a file. A nil Recorder does nothing.
func (r *Recorder) BeginFile() {
	if r == nil {
		return
	}
	r.inFile = true
	r.skipped = 0
}

// EndFile says that the content of the file ends here, and where it is.
func (r *Recorder) EndFile(inode uint64, size int64) {
	if r == nil {
		return
	}

	r.inFile = false
	if r.skipped != size {
		r.fail(errSparse)
		return
	}

	r.flush()
	r.write(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(size)<<1|1), inode))
}

// Close ends the tape. It returns why there is none, if so.
func (r *Recorder) Close() error {
	r.flush()
	if r.out != nil {
		r.fail(r.out.Close())
	}
	return r.err
}

func (r *Recorder) flush() {
	if len(r.piece) == 0 {
		return
	}
	r.write(binary.AppendUvarint(nil, uint64(len(r.piece))<<1))
	r.write(r.piece)
	r.piece = r.piece[:0]
}

func (r *Recorder) write(data []byte) {
	if r.err != nil {
		return
	}
	_, err := r.out.Write(data)
	r.fail(err)
}

// fail keeps the first error.
func (r *Recorder) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// bounded is a writer that takes only so many bytes.
type bounded struct {
	to   io.Writer
	left int
}

// Write writes p if there is room for all of it.
func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, errTooLong
	}
	b.left -= len(p)
	return b.to.Write(p)
}
