package streaming

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trivet-node/trivet/cri/monitor"
)

// MaxOutput is how many bytes of both streams together ExecSync returns: kubelet takes gRPC messages of 16
// MiB. What comes after them is read and dropped.
const MaxOutput = 16<<20 - 64<<10

// maxKept is how many bytes of output all ExecSyncs that run keep together: a user who can create pods has
// any number of probes, each of which may print MaxOutput. What comes while that much is kept is dropped,
// too.
const maxKept = 8 * MaxOutput

// ErrTimeout is a command that was killed because its timeout was over.
var ErrTimeout = errors.New("command timed out")

// Result is what a command wrote and how it ended.
type Result struct {
	Stdout, Stderr []byte
	Exit           monitor.Exit
}

// ExecSync runs a command in a container and returns its output. When timeout (0: none) or ctx ends, the
// process and its descendants are killed; the error is then ErrTimeout or the context's.
func (s *Server) ExecSync(
	ctx context.Context, containerID string, cmd []string, timeout time.Duration,
) (Result, error) {
	process, err := s.cfg.Containers.Process(ctx, containerID)
	if err != nil {
		return Result{}, err
	}

	process.Args = cmd
	process.Terminal = false

	// Both streams together have MaxOutput.
	var own budget
	own.left.Store(MaxOutput)
	stdout, err := newCapture(&own, &s.kept)
	if err != nil {
		return Result{}, fmt.Errorf("exec in container %s: %w", containerID, err)
	}
	defer stdout.close()

	stderr, err := newCapture(&own, &s.kept)
	if err != nil {
		return Result{}, fmt.Errorf("exec in container %s: %w", containerID, err)
	}
	defer stderr.close()

	if timeout > 0 {
		var cancel context.CancelFunc
		late := fmt.Errorf("%w after %s", ErrTimeout, timeout)
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, late)
		defer cancel()
	}

	e, err := s.cfg.Processes.Exec(ctx, monitor.ExecConfig{
		ID:      containerID,
		Process: process,
		Stdout:  stdout.write,
		Stderr:  stderr.write,
	})
	if err != nil {
		return Result{}, err
	}
	defer e.Close()

	stdout.start()
	stderr.start()
	exit, err := e.Wait(ctx)
	if err != nil {
		return Result{}, errors.Join(fmt.Errorf("exec in container %s: %w", containerID, err), e.Kill())
	}

	return Result{
		Stdout: stdout.finish(),
		Stderr: stderr.finish(),
		Exit:   exit,
	}, nil
}

// capture collects what comes through a pipe.
type capture struct {
	read, write *os.File
	done        sync.WaitGroup
	data        []byte

	// own is what this ExecSync may still keep, all is what all of them may.
	own, all *budget
}

// budget is a number of bytes that may still be kept.
type budget struct{ left atomic.Int64 }

// take takes up to n bytes and returns how many there were.
func (b *budget) take(n int64) int64 {
	missing := min(n, max(-b.left.Add(-n), 0))
	b.left.Add(missing)
	return n - missing
}

func newCapture(own, all *budget) (*capture, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &capture{
		read:  r,
		write: w,
		own:   own,
		all:   all,
	}, nil
}

// Sizes of the buffer that output is read into: a probe writes little, and a command that fills the small one
// gets the big one.
const (
	smallBuffer = 4 << 10
	bigBuffer   = 64 << 10
)

// start begins to read, once the process has its end of the pipe. The server's copy of that end is closed, as
// the pipe would never end otherwise.
func (c *capture) start() {
	c.write.Close()
	c.done.Go(func() {
		from := &processOutput{f: c.read}
		buf := make([]byte, smallBuffer)
		for {
			n, err := from.Read(buf)
			kept := c.all.take(c.own.take(int64(n)))
			c.data = append(c.data, buf[:kept]...)
			if err != nil {
				return
			}
			if n == len(buf) && n < bigBuffer {
				buf = make([]byte, bigBuffer)
			}
		}
	})
}

// finish returns what came. It is called after the process has ended.
func (c *capture) finish() []byte {
	limitOutput(c.read)
	c.done.Wait()
	return c.data
}

// close closes the pipe, and returns to the budget of all what was kept: the caller sends it at once.
func (c *capture) close() {
	c.write.Close()
	c.read.Close()
	c.done.Wait()
	c.all.left.Add(int64(len(c.data)))
}
