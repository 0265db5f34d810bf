package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// errStuck is a transfer without progress.
var errStuck = errors.New("too little came within the progress timeout")

// minProgress is how much of a blob must come within the progress timeout: with less, a registry could hold
// a pull forever by a byte now and then.
const minProgress = 64 << 10

// stuck says that ctx ended for want of progress, which net/http reports as the caller's own cancellation or
// deadline.
func stuck(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStuck) {
		return errStuck
	}
	return err
}

// Blob opens a blob of size bytes. Reading goes on where it stopped after a broken or stuck connection, at
// the same host first and at the others then. The content is not verified: the caller hashes what it reads. A
// blob longer than size ends with an error.
func (r *Repository) Blob(ctx context.Context, d digest.Digest, size int64) (io.ReadCloser, error) {
	b := &blob{
		ctx:        ctx,
		repository: r,
		digest:     d,
		size:       size,
	}

	for _, e := range r.endpoints {
		if e.pull {
			b.hosts = append(b.hosts, e)
		}
	}

	if len(b.hosts) == 0 {
		return nil, fmt.Errorf("get blob %s of %s: hosts.toml leaves no host that may be asked", d, r.ref)
	}
	if err := b.connect(); err != nil {
		return nil, b.failed(err)
	}

	return b, nil
}

// blob is one transfer.
type blob struct {
	ctx        context.Context // of the whole transfer; a Reader has no other way to be given one
	repository *Repository
	digest     digest.Digest
	size       int64

	hosts    []endpoint // those still to be asked, the present one first
	offset   int64      // bytes delivered
	recent   int64      // those of them that do not count as progress yet
	failures int        // in a row without progress in between
	errs     []error    // of the hosts given up

	body   io.ReadCloser
	cancel context.CancelCauseFunc
	watch  *time.Timer
}

func (b *blob) failed(err error) error {
	return fmt.Errorf("get blob %s of %s: %w", b.digest, b.repository.ref, err)
}

// connect opens the transfer at the offset, trying again and at other hosts as long as that makes sense.
func (b *blob) connect() error {
	for {
		err := b.open()
		if err == nil {
			return nil
		}
		if err := b.next(err); err != nil {
			return err
		}
	}
}

// next decides what follows a failure: another try, another host, or (an error) nothing.
func (b *blob) next(err error) error {
	b.hangUp()
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}

	b.failures++
	if passing(err) && b.failures < b.repository.client.tries {
		return wait(b.ctx, b.repository.client.retry(b.failures-1))
	}

	b.errs = append(b.errs, fmt.Errorf("%s: %w", b.hosts[0].base.Host, err))
	b.hosts, b.failures = b.hosts[1:], 0
	if len(b.hosts) == 0 {
		return errors.Join(b.errs...)
	}

	return nil
}

func (b *blob) open() error {
	ctx, cancel := context.WithCancelCause(b.ctx)
	b.cancel = cancel
	timeout := b.repository.client.config.ProgressTimeout
	b.watch = time.AfterFunc(timeout, func() { cancel(errStuck) })
	header := make(http.Header)
	if b.offset > 0 {
		// with an end: not every registry takes an open range
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.offset, b.size-1))
	}

	response, err := b.repository.get(ctx, b.hosts[0], "/blobs/"+b.digest.String(), header)
	if err != nil {
		return stuck(ctx, err)
	}

	b.body = &watchedReader{
		ReadCloser: response.Body,
		ctx:        ctx,
		watch:      b.watch,
		timeout:    timeout,
	}

	// the host knows no ranges: skip what we have
	if b.offset > 0 && response.StatusCode == http.StatusOK {
		if _, err := io.CopyN(io.Discard, b.body, b.offset); err != nil {
			return err
		}
	}

	return nil
}

// watchedReader tells the watch of a transfer about its progress.
type watchedReader struct {
	io.ReadCloser
	ctx     context.Context // of the transfer
	watch   *time.Timer
	timeout time.Duration
	recent  int // bytes since the watch was set
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if w.recent += n; w.recent >= minProgress {
		w.recent = 0
		w.watch.Reset(w.timeout)
	}
	if err != nil && err != io.EOF {
		err = stuck(w.ctx, err)
	}
	return n, err
}

func (b *blob) hangUp() {
	if b.watch != nil {
		b.watch.Stop()
	}
	if b.cancel != nil {
		b.cancel(nil)
	}
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
}

// Read implements io.Reader.
func (b *blob) Read(p []byte) (int, error) {
	for {
		if b.offset == b.size {
			return 0, io.EOF
		}
		if left := b.size - b.offset; int64(len(p)) > left {
			p = p[:left]
		}

		n, err := b.body.Read(p)
		if n > 0 {
			b.delivered(int64(n))
			return n, nil
		}

		if err == nil {
			continue
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err := b.next(err); err != nil {
			return 0, b.failed(err)
		}
		if err := b.connect(); err != nil {
			return 0, b.failed(err)
		}
	}
}

func (b *blob) delivered(n int64) {
	b.offset += n
	if b.recent += n; b.recent >= minProgress {
		b.recent, b.failures = 0, 0
	}
}

// Close ends the transfer.
func (b *blob) Close() error {
	b.hangUp()
	return nil
}

// isReset reports whether a connection that once worked broke.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, errStuck)
}
