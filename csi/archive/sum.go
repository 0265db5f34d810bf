package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
)

// blockSize is what all parts of a tar archive are multiples of.
const blockSize = 512

// summedWriter adds up what is written.
type summedWriter struct {
	to  io.Writer
	sum hash.Hash
}

func newSummedWriter(to io.Writer) *summedWriter { return &summedWriter{to: to, sum: sha256.New()} }

func (w *summedWriter) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	w.sum.Write(p[:n])
	return n, err
}

func (w *summedWriter) String() string { return hex.EncodeToString(w.sum.Sum(nil)) }

// summedReader adds up what is read, up to a mark, too: where the last entry begins is known when it has been
// read.
type summedReader struct {
	from io.Reader
	sum  hash.Hash
	at   int64

	mark   int64
	marked string // sum of what is before the mark
}

func newSummedReader(from io.Reader) *summedReader {
	return &summedReader{from: from, sum: sha256.New(), mark: -1}
}

// setMark marks where the next entry begins, when all of the last one has been read but what fills its block.
func (r *summedReader) setMark() {
	r.mark = (r.at + blockSize - 1) / blockSize * blockSize
	r.note()
}

func (r *summedReader) Read(p []byte) (int, error) {
	if left := r.mark - r.at; left > 0 && int64(len(p)) > left {
		p = p[:left]
	}
	n, err := r.from.Read(p)
	r.sum.Write(p[:n])
	r.at += int64(n)
	r.note()
	return n, err
}

func (r *summedReader) note() {
	if r.at == r.mark {
		r.marked = hex.EncodeToString(r.sum.Sum(nil))
	}
}
