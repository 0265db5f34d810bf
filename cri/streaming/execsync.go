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

// MaxOutput is how much of both streams together ExecSync returns: kubelet takes gRPC messages of 16 MiB.
// What comes after it is read and dropped.
const MaxOutput = 16<<20 - 64<<10

// maxHeld is how much output all ExecSyncs that run hold together: whoever can create pods has as many probes
// as he likes, each of which may print MaxOutput. What comes while that much is held is dropped, too.
const maxHeld = 8 * MaxOutput

// ErrTimeout says that a process was killed because its time was up.
var ErrTimeout = errors.New("command timed out")

// Result is what a command gave.
type Result struct {
	Stdout, Stderr []byte
	Exit           monitor.Exit
}

// ExecSync runs a command in a container. When timeout (0: none) or ctx ends, the process and its descendants
// are killed; the error is then ErrTimeout or the context's.
func (s *Server) ExecSync(
	ctx context.Context,
	containerID string,
	cmd []string,
	timeout time.Duration,
) (Result, error) {
	process, err := s.cfg.Process(ctx, containerID)
	if err != nil {
		return Result{}, err
	}

	process.Args, process.Terminal = cmd, false
	var room budget
	room.left.Store(MaxOutput)
	stdout, err := newCapture(&room, &s.held)
	if err != nil {
		return Result{}, fmt.Errorf("exec in container %s: %w", containerID, err)
	}
	defer stdout.close()

	stderr, err := newCapture(&room, &s.held)
	if err != nil {
		return Result{}, fmt.Errorf("exec in container %s: %w", containerID, err)
	}
	defer stderr.close()

	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w after %s", ErrTimeout, timeout))
		defer cancel()
	}

	e, err := s.cfg.Monitor.Exec(ctx, monitor.ExecConfig{
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

	return Result{Stdout: stdout.finish(), Stderr: stderr.finish(), Exit: exit}, nil
}

// capture collects what comes through a pipe.
type capture struct {
	read, write *os.File
	done        sync.WaitGroup
	data        []byte
	room, all   *budget // what this ExecSync may still keep, and all of them
}

// budget is a number of bytes that may still be kept.
type budget struct{ left atomic.Int64 }

// take takes up to n bytes and tells how many there were.
func (b *budget) take(n int64) int64 {
	lacks := min(n, max(-b.left.Add(-n), 0))
	b.left.Add(lacks)
	return n - lacks
}

func newCapture(room, all *budget) (*capture, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &capture{
		read:  r,
		write: w,
		room:  room,
		all:   all,
	}, nil
}

// start begins to read. Our writing end must go, else the pipe never ends.
func (c *capture) start() {
	c.write.Close()
	c.done.Go(func() {
		from := &output{f: c.read}
		buf := make([]byte, 4<<10)
		for {
			n, err := from.Read(buf)
			c.data = append(c.data, buf[:c.all.take(c.room.take(int64(n)))]...)
			if err != nil {
				return
			}

			// there is more where this came from
			if n == len(buf) && n < 64<<10 {
				buf = make([]byte, 64<<10)
			}
		}
	})
}

// finish returns what came. It is called after the process has ended.
func (c *capture) finish() []byte {
	ended(c.read)
	c.done.Wait()
	return c.data
}

// close also gives back what all ExecSyncs may keep: the caller hands the output on at once.
func (c *capture) close() {
	c.write.Close()
	c.read.Close()
	c.done.Wait()
	c.all.left.Add(int64(len(c.data)))
}
