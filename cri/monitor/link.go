package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// link is one connection to one life of the monitor.
type link struct {
	conn *wire.Conn
	lost chan struct{} // closed when the connection has ended

	// mu guards all below.
	mu      sync.Mutex
	lastSeq uint64
	pending map[uint64]chan answer
	execs   map[uint64]*Exec // by the number of the request that started each
}

type answer struct {
	message wire.Message
	files   wire.Files
}

func newLink(conn *wire.Conn) *link {
	return &link{
		conn:    conn,
		lost:    make(chan struct{}),
		pending: map[uint64]chan answer{},
		execs:   map[uint64]*Exec{},
	}
}

// errLost is the end of a connection before the answer came: the request may have been carried out or not.
var errLost = errors.New("the monitor died before it answered")

// sendGrace is how long a call waits, after a message could not be sent, to find out that the connection has
// ended.
const sendGrace = time.Second

// call sends a request and waits for its answer. The caller closes the files of the answer.
func (l *link) call(ctx context.Context, m wire.Message, files wire.Files) (wire.Message, wire.Files, error) {
	l.mu.Lock()
	m.Seq = l.nextSeq()
	l.mu.Unlock()
	return l.callAs(ctx, m, files)
}

// callAs is call with the number of the request in m.Seq.
func (l *link) callAs(
	ctx context.Context,
	m wire.Message,
	files wire.Files,
) (wire.Message, wire.Files, error) {
	answers := make(chan answer, 1)
	l.mu.Lock()
	l.pending[m.Seq] = answers
	l.mu.Unlock()

	if err := l.conn.Send(m, files); err != nil {
		l.forget(m.Seq, answers)
		select {
		case <-l.lost:
			return wire.Message{}, nil, errLost
		case <-time.After(sendGrace):
			// The connection is good, the message is not: it is too large.
			return wire.Message{}, nil, fmt.Errorf("%s %s: %w", m.Op, m.ID, err)
		}
	}

	select {
	case a := <-answers:
		return a.message, a.files, a.message.Fail.Err()
	case <-l.lost:
		l.forget(m.Seq, answers)
		return wire.Message{}, nil, errLost
	case <-ctx.Done():
		l.forget(m.Seq, answers)
		return wire.Message{}, nil, fmt.Errorf("%s %s: %w", m.Op, m.ID, context.Cause(ctx))
	}
}

// nextSeq needs l.mu.
func (l *link) nextSeq() uint64 {
	l.lastSeq++
	return l.lastSeq
}

// forget drops a request. The files of an answer that came at the last moment are closed.
func (l *link) forget(seq uint64, answers chan answer) {
	l.mu.Lock()
	delete(l.pending, seq)
	l.mu.Unlock()

	select {
	case a := <-answers:
		a.files.Close()
	default:
	}
}

// answered passes an answer to its caller, who closes the files.
func (l *link) answered(m wire.Message, files wire.Files) {
	l.mu.Lock()
	answers := l.pending[m.Seq]
	delete(l.pending, m.Seq)
	l.mu.Unlock()

	// The caller has stopped waiting.
	if answers == nil {
		files.Close()
		return
	}
	answers <- answer{m, files}
}

// addExec registers an exec and returns the number that its request must have: its exit may come right after
// the answer.
func (l *link) addExec(e *Exec) (seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq = l.nextSeq()
	l.execs[seq] = e
	return seq
}

// takeExec removes an exec; nil if it is not there.
func (l *link) takeExec(seq uint64) *Exec {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.execs[seq]
	delete(l.execs, seq)
	return e
}

// execExited records the end of an exec.
func (l *link) execExited(m wire.Message) {
	if e := l.takeExec(m.Seq); e != nil && m.Exit != nil {
		e.exit = *m.Exit
		close(e.done)
	}
}
