package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/internal/lockfile"
)

// Client is a connection to the monitor that repairs itself: when the monitor dies, Client starts it again,
// hands back what it holds, and goes on. Its methods may be called from many goroutines.
type Client struct {
	cfg    Config
	log    *slog.Logger
	exits  *queue
	runner ociruntime.Runner
	cancel context.CancelFunc
	ended  chan struct{} // closed when the keeper has returned
	once   sync.Once     // of what Close must not do twice
	end    chan struct{} // closed when the monitor was dismissed

	mu   sync.Mutex // guards all below
	link *link      // nil while there is no monitor
	up   chan struct{}
	held map[string]*held
	down error // why there is no monitor, for those who give up waiting
}

// link is one connection to one life of the monitor.
type link struct {
	conn    *wire.Conn
	mu      sync.Mutex // guards all below
	seq     uint64
	pending map[uint64]chan answer
	execs   map[uint64]*Exec
	lost    chan struct{} // closed when the connection has ended
}

type answer struct {
	message wire.Message
	files   wire.Files
}

// errLost is the end of a connection before the answer came.
var errLost = errors.New("the monitor died before it answered")

// Connect connects to the monitor, starts it if nobody answers, and takes hold of all containers that it
// knows. It returns when the first connection is up; after that the connection is kept until Close. Exits
// that happened before are already waiting in Exits.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}

	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Client{
		cfg:    cfg,
		log:    cfg.Log,
		exits:  newQueue(),
		cancel: cancel,
		ended:  make(chan struct{}),
		end:    make(chan struct{}),
		up:     make(chan struct{}),
		held:   map[string]*held{},
	}

	// A monitor that was killed may seem to live for a moment, so that neither dialling nor starting one
	// succeeds.
	var l *link
	var err error
	lockfile.Await(ctx, func() bool {
		l, err = c.open(ctx)
		return err == nil
	})
	if err != nil {
		cancel()
		c.exits.close()
		return nil, err
	}

	go c.keep(life, l)
	return c, nil
}

// Close gives up the connection and all copies of descriptors. Monitor and containers go on.
func (c *Client) Close() error {
	c.cancel()
	<-c.ended
	c.once.Do(c.exits.close)
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, h := range c.held {
		h.release()
		delete(c.held, id)
	}
	return nil
}

// Exits tells the end of every container, each one once per Client. It is closed by Close.
func (c *Client) Exits() <-chan Exit { return c.exits.out }

// keep serves one connection after the other until ctx ends.
func (c *Client) keep(ctx context.Context, l *link) {
	defer close(c.ended)

	for {
		stop := context.AfterFunc(ctx, func() { l.conn.Close() })
		c.serve(l)
		stop()
		if ctx.Err() != nil || c.dismissed() {
			return
		}

		c.log.Warn("monitor is gone; starting it again", "socket", c.cfg.Socket)
		pause := 10 * time.Millisecond
		for {
			next, err := c.open(ctx)
			if err == nil {
				l = next
				break
			}

			c.mu.Lock()
			c.down = err
			c.mu.Unlock()
			c.log.Error("monitor cannot be started", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}

			pause = min(2*pause, 2*time.Second)
		}
	}
}

// open makes a connection: dial or start, hand back what is held, take hold of the rest.
func (c *Client) open(ctx context.Context) (*link, error) {
	conn, err := dialOrStart(ctx, c.cfg)
	if err != nil {
		return nil, err
	}

	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	if err := c.handBack(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("hand containers back to the monitor: %w", err)
	}

	if err := c.greet(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("take hold of the monitor's containers: %w", err)
	}

	l := &link{
		conn:    conn,
		pending: map[uint64]chan answer{},
		execs:   map[uint64]*Exec{},
		lost:    make(chan struct{}),
	}

	c.mu.Lock()
	c.link, c.down = l, nil
	close(c.up)
	c.mu.Unlock()
	return l, nil
}

// handBack gives the monitor copies of what it may have lost by dying. One that has not died ignores them.
func (c *Client) handBack(conn *wire.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()

	for id, h := range c.held {
		if h.exited() {
			continue
		}

		files := wire.Files{wire.FdPid: h.pidfd, wire.FdTTY: h.tty}
		if err := conn.Send(wire.Message{Op: wire.OpAdopt, ID: id}, files); err != nil {
			return err
		}
	}

	return nil
}

// greet takes the monitor's list, which also says what became of containers while nobody listened.
func (c *Client) greet(conn *wire.Conn) error {
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
			c.take(*m.Status, files)
		case wire.OpExit:
			c.exited(*m.Exit)
		case wire.OpReply:
			c.forgetUnknown(known)
			return m.Fail.Err()
		}

		files.Close()
	}
}

// forgetUnknown lets go of containers that the monitor does not know (any more): its state directory was
// removed.
func (c *Client) forgetUnknown(known map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()

	for id, h := range c.held {
		if known[id] {
			continue
		}

		if !h.exited() {
			e := Exit{
				ID:      id,
				Code:    UnknownCode,
				Unknown: true,
				At:      time.Now(),
			}

			h.status.Exit = &e
			close(h.done)
			c.exits.put(e)
		}

		h.release()
		delete(c.held, id)
	}
}

// serve reads until the connection ends.
func (c *Client) serve(l *link) {
	for {
		m, files, err := l.conn.Receive()
		if err != nil {
			break
		}

		switch m.Op {
		case wire.OpReply:
			// a created container: hold it before its exit can be told
			if m.Status != nil {
				c.take(*m.Status, files)
			}

			l.reply(m, files)

			// the caller owns the files
			continue

		case wire.OpExit:
			c.exited(*m.Exit)
		case wire.OpExecExit:
			l.execExited(m)
		case wire.OpDismissed:
			close(c.end)
		}

		files.Close()
	}

	l.conn.Close()
	c.mu.Lock()
	c.link, c.up = nil, make(chan struct{})
	c.mu.Unlock()
	close(l.lost)
}

func (l *link) reply(m wire.Message, files wire.Files) {
	l.mu.Lock()
	ch := l.pending[m.Seq]
	delete(l.pending, m.Seq)
	l.mu.Unlock()
	if ch == nil {
		// the caller has given up
		files.Close()
		return
	}
	ch <- answer{m, files}
}

// connected waits for a connection.
func (c *Client) connected(ctx context.Context) (*link, error) {
	for {
		c.mu.Lock()
		l, up, down := c.link, c.up, c.down
		c.mu.Unlock()
		if l != nil {
			return l, nil
		}

		select {
		case <-up:
		case <-c.ended:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), down)
		}
	}
}

// call sends a request and waits for its answer. errLost when the monitor died in between: the request may
// have been carried out or not. before, if not nil, runs with the number of the request before it is sent.
func (l *link) call(
	ctx context.Context,
	m wire.Message,
	files wire.Files,
	before func(seq uint64),
) (wire.Message, wire.Files, error) {
	ch := make(chan answer, 1)
	l.mu.Lock()
	l.seq++
	m.Seq = l.seq
	l.pending[m.Seq] = ch
	l.mu.Unlock()
	if before != nil {
		before(m.Seq)
	}

	if err := l.conn.Send(m, files); err != nil {
		l.drop(m.Seq, ch)
		select {
		case <-l.lost:
			return wire.Message{}, nil, errLost

		// a message that cannot be sent, e.g. too large; the connection is good
		case <-time.After(time.Second):
			return wire.Message{}, nil, fmt.Errorf("%s %s: %w", m.Op, m.ID, err)
		}
	}

	select {
	case a := <-ch:
		return a.message, a.files, a.message.Fail.Err()
	case <-l.lost:
		l.drop(m.Seq, ch)
		return wire.Message{}, nil, errLost
	case <-ctx.Done():
		l.drop(m.Seq, ch)
		return wire.Message{}, nil, fmt.Errorf("%s %s: %w", m.Op, m.ID, context.Cause(ctx))
	}
}

// drop forgets a request; an answer that came at the last moment is closed.
func (l *link) drop(seq uint64, ch chan answer) {
	l.mu.Lock()
	delete(l.pending, seq)
	l.mu.Unlock()
	select {
	case a := <-ch:
		a.files.Close()
	default:
	}
}

// simple makes a call that may be repeated, and does so when the monitor dies meanwhile.
func (c *Client) simple(ctx context.Context, m wire.Message, files wire.Files) error {
	for {
		l, err := c.connected(ctx)
		if err != nil {
			return err
		}
		_, got, err := l.call(ctx, m, files, nil)
		got.Close()
		if !errors.Is(err, errLost) {
			return err
		}
	}
}
