package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/retry"
)

// keeper keeps a connection to the monitor: it starts a monitor when there is none and passes on what the
// monitor sends.
type keeper struct {
	cfg        Config
	containers *containers
	ended      chan struct{} // closed when run has returned
	dismissed  chan struct{} // closed when the monitor was dismissed

	// mu guards all below.
	mu   sync.Mutex
	link *link // nil while there is no monitor
	up   chan struct{}
	down error // why there is no monitor, for callers that stop waiting

	// opened is how many connections there have been.
	opened int64
}

func newKeeper(cfg Config, containers *containers) *keeper {
	return &keeper{
		cfg:        cfg,
		containers: containers,
		ended:      make(chan struct{}),
		dismissed:  make(chan struct{}),
		up:         make(chan struct{}),
	}
}

// openFirst makes the first connection. A monitor that was killed may seem to live for a moment, so that
// neither a connection to it nor a start of another one succeeds.
func (k *keeper) openFirst(ctx context.Context) (l *link, err error) {
	lockfile.Await(ctx, func() bool {
		l, err = k.open(ctx)
		return err == nil
	})
	return l, err
}

// run serves one connection after the other until ctx ends or the monitor is dismissed.
func (k *keeper) run(ctx context.Context, l *link) {
	defer close(k.ended)
	for l != nil {
		stop := context.AfterFunc(ctx, func() { l.conn.Close() })
		k.serve(l)
		stop()
		if ctx.Err() != nil || isClosed(k.dismissed) {
			return
		}
		k.cfg.Log.Warn("monitor is gone; starting it again", "socket", k.cfg.Socket)
		l = k.reopen(ctx)
	}
}

// reopen tries to make a connection until it succeeds; nil when ctx ends.
func (k *keeper) reopen(ctx context.Context) *link {
	for range (retry.Backoff{First: 10 * time.Millisecond, Max: 2 * time.Second}).Attempts(ctx) {
		l, err := k.open(ctx)
		if err == nil {
			return l
		}
		k.mu.Lock()
		k.down = err
		k.mu.Unlock()
		k.cfg.Log.Error("monitor cannot be started", "err", err)
	}
	return nil
}

// open makes a connection, hands back what the client holds, and takes the monitor's list of containers.
func (k *keeper) open(ctx context.Context) (*link, error) {
	conn, err := dialOrStart(ctx, k.cfg)
	if err != nil {
		return nil, err
	}

	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	// Descriptors come before hello: what was not handed back by then counts as lost.
	if err := k.containers.restoreFiles(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("hand descriptors back to the monitor: %w", err)
	}

	if err := k.hello(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("get the monitor's containers: %w", err)
	}

	// The containers are known: callers that wait for a connection can go on.
	l := newLink(conn)
	k.mu.Lock()
	defer k.mu.Unlock()

	k.link = l
	k.down = nil
	k.opened++
	close(k.up)
	return l, nil
}

// hello takes the monitor's list, which also says how containers ended while no client was connected.
func (k *keeper) hello(conn *wire.Conn) error {
	if err := conn.Send(wire.Message{Op: wire.OpHello}, nil); err != nil {
		return err
	}

	known := map[string]bool{}
	for {
		m, files, err := conn.Receive()
		if err != nil {
			return err
		}

		switch m.Op {
		case wire.OpContainer:
			known[m.Status.ID] = true
			k.containers.announced(*m.Status, files)
		case wire.OpExit:
			k.containers.exited(*m.Exit)
		case wire.OpReply:
			files.Close()
			k.containers.keepOnly(known)
			return m.Fail.Err()
		}

		files.Close()
	}
}

// serve passes on what the monitor sends until the connection ends.
func (k *keeper) serve(l *link) {
	for {
		m, files, err := l.conn.Receive()
		if err != nil {
			break
		}

		switch m.Op {
		case wire.OpReply:
			// A container that was made is known before its exit can come.
			if m.Status != nil {
				k.containers.announced(*m.Status, files)
			}

			l.answered(m, files)
			continue

		case wire.OpExit:
			k.containers.exited(*m.Exit)
		case wire.OpExecExit:
			l.execExited(m)
		case wire.OpDismissed:
			close(k.dismissed)
		}

		files.Close()
	}

	l.conn.Close()
	k.mu.Lock()
	k.link = nil
	k.up = make(chan struct{})
	k.mu.Unlock()
	close(l.lost)
}

// connected waits for a connection.
func (k *keeper) connected(ctx context.Context) (*link, error) {
	for {
		k.mu.Lock()
		l, up, down := k.link, k.up, k.down
		k.mu.Unlock()
		if l != nil {
			return l, nil
		}

		select {
		case <-up:
		case <-k.ended:
			return nil, errClosed
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), down)
		}
	}
}

// request makes a call that may be repeated, and repeats it when the monitor dies before it answers.
func (k *keeper) request(ctx context.Context, m wire.Message) error {
	for {
		l, err := k.connected(ctx)
		if err != nil {
			return err
		}
		_, files, err := l.call(ctx, m, nil)
		files.Close()
		if !errors.Is(err, errLost) {
			return err
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
