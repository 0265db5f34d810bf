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

	"github.com/trivet-node/trivet/internal/retry"
)

// errStuck is the error of a transfer without progress.
var errStuck = errors.New("too little came within the progress timeout")

// minProgress is how much of a blob must come within the progress timeout: with less, a registry could hold
// a pull forever by a byte now and then.
const minProgress = 64 << 10

// stuck returns errStuck if ctx ended because there was no progress, which net/http reports as a cancellation
// by the caller, or as a deadline; else err.
func stuck(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStuck) {
		return errStuck
	}
	return err
}

// Blob opens a blob of size bytes. After a broken or stuck connection, reading goes on where it stopped, at
// the same host first and then at the others. The content is not verified: the caller hashes what it reads.
// Not more than size bytes are read.
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
		return nil, b.failed(errNoHost)
	}
	if err := b.connect(); err != nil {
		return nil, b.failed(err)
	}

	return b, nil
}

// blob is one transfer.
type blob struct {
	// ctx is that of the whole transfer: a Reader has no other way to be given one.
	ctx context.Context

	repository *Repository
	digest     digest.Digest
	size       int64

	hosts    []endpoint // those still to be asked, the present one first
	offset   int64      // bytes delivered
	recent   int64      // bytes that do not count as progress yet
	failures int        // in a row without progress in between
	errs     []error    // of the hosts that are not asked any more

	body   io.ReadCloser
	cancel context.CancelCauseFunc
	watch  *time.Timer
}

func (b *blob) failed(err error) error {
	return fmt.Errorf("get blob %s of %s: %w", b.digest, b.repository.ref, err)
}

// connect opens the transfer at the offset: it repeats that, and asks the other hosts, as long as it may
// help.
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

// next prepares what follows a failure: another attempt, or another host. An error says that nothing does.
func (b *blob) next(err error) error {
	b.disconnect()
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}

	b.failures++
	if isTemporary(err) && b.failures < b.repository.client.attempts {
		return retry.Sleep(b.ctx, b.repository.client.pause(b.failures-1))
	}

	b.errs = append(b.errs, fmt.Errorf("%s: %w", b.hosts[0].base.Host, err))
	b.hosts = b.hosts[1:]
	b.failures = 0
	if len(b.hosts) == 0 {
		return errors.Join(b.errs...)
	}

	return nil
}

func (b *blob) open() error {
	ctx, cancel := context.WithCancelCause(b.ctx)
	b.cancel = cancel
	timeout := b.repository.client.cfg.ProgressTimeout
	b.watch = time.AfterFunc(timeout, func() { cancel(errStuck) })
	header := make(http.Header)
	if b.offset > 0 {
		// The range has an end, because not every registry accepts an open one.
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

	// The host does not support ranges: what was delivered already is skipped.
	if b.offset > 0 && response.StatusCode == http.StatusOK {
		if _, err := io.CopyN(io.Discard, b.body, b.offset); err != nil {
			return err
		}
	}

	return nil
}

// watchedReader restarts the timer of a transfer when there is progress.
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
	if err != nil && !errors.Is(err, io.EOF) {
		err = stuck(w.ctx, err)
	}
	return n, err
}

func (b *blob) disconnect() {
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

// Read reads what comes next, from a new connection if the present one breaks.
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
	b.repository.client.cfg.Received(n)
	if b.recent += n; b.recent >= minProgress {
		b.recent = 0
		b.failures = 0
	}
}

// Close ends the transfer.
func (b *blob) Close() error {
	b.disconnect()
	return nil
}

// isReset reports whether a connection that once worked broke.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, errStuck)
}
