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

// MaxOutput is how much of both streams together ExecSync returns: kubelet takes gRPC messages of 16 MiB. What comes after it is read and dropped.
const MaxOutput = 16<<20 - 64<<10

// ErrTimeout says that a process was killed because its time was up.
var ErrTimeout = errors.New("command timed out")

// Result is what a command gave.
type Result struct {
	Stdout, Stderr []byte
	Exit           monitor.Exit
}

// ExecSync runs a command in a container. When timeout (0: none) or ctx ends, the process and its descendants are killed; the error is then
// ErrTimeout or the context's.
func (s *Server) ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (Result, error) {
	process, err := s.cfg.Process(ctx, containerID)
	if err != nil {
		return Result{}, err
	}
	process.Args, process.Terminal = cmd, false
	var room atomic.Int64
	room.Store(MaxOutput)
	stdout, err := newCapture(&room)
	if err != nil {
		return Result{}, fmt.Errorf("exec in container %s: %w", containerID, err)
	}
	defer stdout.close()
	stderr, err := newCapture(&room)
	if err != nil {
		return Result{}, fmt.Errorf("exec in container %s: %w", containerID, err)
	}
	defer stderr.close()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w after %s", ErrTimeout, timeout))
		defer cancel()
	}
	e, err := s.cfg.Monitor.Exec(ctx, monitor.ExecConfig{ID: containerID, Process: process, Stdout: stdout.write, Stderr: stderr.write})
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
	room        *atomic.Int64 // what may still be kept
}

func newCapture(room *atomic.Int64) (*capture, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &capture{read: r, write: w, room: room}, nil
}

// start begins to read. Our writing end must go, else the pipe never ends.
func (c *capture) start() {
	c.write.Close()
	c.done.Go(func() {
		from := &output{f: c.read}
		buf := make([]byte, 4<<10)
		for {
			n, err := from.Read(buf)
			left := c.room.Add(-int64(n)) + int64(n)
			c.data = append(c.data, buf[:min(int64(n), max(left, 0))]...)
			if err != nil {
				return
			}
			if n == len(buf) && n < 64<<10 { // there is more where this came from
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

func (c *capture) close() {
	c.write.Close()
	c.read.Close()
	c.done.Wait()
}
