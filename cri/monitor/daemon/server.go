package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/retry"
)

// session is one client's connection.
type session struct {
	conn *wire.Conn

	// order is held while the list of containers is sent, so that no event overtakes it.
	order sync.Mutex
}

// event sends an event. A client that is gone asks for the state when it is back, so an error changes
// nothing.
func (s *session) event(m wire.Message) {
	s.order.Lock()
	defer s.order.Unlock()
	_ = s.conn.Send(m, nil)
}

// reply answers a request. A client that is gone needs no answer.
func (s *session) reply(seq uint64, err error) {
	_ = s.conn.Send(wire.Message{Op: wire.OpReply, Seq: seq, Fail: wire.FailOf(err)}, nil)
}

// clients are the sessions that get events: those that have said hello.
type clients struct {
	// mu guards all.
	mu  sync.Mutex
	all map[*session]struct{}
}

func (c *clients) add(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[s] = struct{}{}
}

func (c *clients) remove(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, s)
}

// send sends an event to every client.
func (c *clients) send(m wire.Message) {
	c.mu.Lock()
	sessions := slices.Collect(maps.Keys(c.all))
	c.mu.Unlock()

	for _, s := range sessions {
		s.event(m)
	}
}

// server carries out the requests of clients.
type server struct {
	containers *containers
	clients    *clients
	listener   *wire.Listener

	// busy is read-locked by requests. It is locked by an upgrade, and for good once the monitor is
	// dismissed.
	busy      sync.RWMutex
	dismissed chan struct{} // closed when the daemon is to end
}

func newServer(all *containers, listener *wire.Listener) *server {
	return &server{
		containers: all,
		clients:    all.node.clients,
		listener:   listener,
		dismissed:  make(chan struct{}),
	}
}

// serve reads a client's requests until the client is gone.
func (v *server) serve(conn *wire.Conn) {
	s := &session{conn: conn}
	defer conn.Close()
	defer v.clients.remove(s)

	for {
		m, files, err := conn.Receive()
		if err != nil {
			return
		}

		// Adopt and hello must be handled in their order; other requests may take long.
		switch m.Op {
		case wire.OpAdopt:
			v.containers.adopt(m.ID, files)
			files.Close()
		case wire.OpHello:
			files.Close()
			v.hello(s, m.Seq)
		case wire.OpDismiss:
			files.Close()
			go v.dismiss(s, m.Seq)
		default:
			go v.request(s, m, files)
		}
	}
}

// request carries out one request and answers it. An upgrade waits for it.
func (v *server) request(s *session, m wire.Message, files wire.Files) {
	v.busy.RLock()
	defer v.busy.RUnlock()
	defer files.Close()

	switch m.Op {
	case wire.OpCreate:
		v.create(s, m)
	case wire.OpExec:
		v.exec(s, m, files)
	case wire.OpForget:
		s.reply(m.Seq, v.containers.forget(m.ID, m.Deleted))
	case wire.OpReopenLog:
		s.reply(m.Seq, v.with(m.ID, func(c *container) error { return c.out.reopenLog() }))
	case wire.OpAttach:
		s.reply(m.Seq, v.with(m.ID, func(c *container) error { return c.attach(files) }))
	case wire.OpCloseStdin:
		s.reply(m.Seq, v.with(m.ID, (*container).closeStdin))
	default:
		s.reply(m.Seq, fmt.Errorf("the monitor does not know the request %q", m.Op))
	}
}

// with calls f with a container.
func (v *server) with(id string, f func(*container) error) error {
	c, err := v.containers.find(id)
	if err != nil {
		return err
	}
	return f(c)
}

// create makes a container and answers. Its exit is sent after the answer.
func (v *server) create(s *session, m wire.Message) {
	c, err := v.containers.create(m.Container)
	if err != nil {
		s.reply(m.Seq, err)
		return
	}

	status, files := c.share()
	err = s.conn.Send(wire.Message{Op: wire.OpReply, Seq: m.Seq, Status: &status}, files)
	files.Close()
	close(c.announced)

	// The client is gone. The next one may already have asked to forget the container, before it was there.
	if err != nil {
		err = errors.Join(err, v.containers.forget(c.id, false))
		c.node.log.Info("container is dropped: the client that asked for it is gone",
			"container", c.id, "err", err)
	}
}

// exec starts a process in a container and answers. Its end is sent to this client alone, and nothing of it
// is kept.
func (v *server) exec(s *session, m wire.Message, files wire.Files) {
	release := v.containers.node.reaper.KeepUnclaimed()
	defer release()

	process, err := v.containers.exec(m, files)
	if err != nil {
		s.reply(m.Seq, err)
		return
	}

	defer process.close()

	// A client that is gone hears of neither: its process has ended with it, or ends by itself.
	reply := wire.Message{Op: wire.OpReply, Seq: m.Seq, Pid: process.pid}
	_ = s.conn.Send(reply, wire.Files{wire.FdPid: process.pidfd})
	process.onExit(func(exit wire.Exit) {
		_ = s.conn.Send(wire.Message{Op: wire.OpExecExit, Seq: m.Seq, Exit: &exit}, nil)
	})
}

// hello ends what a client hands back: descriptors that no client has brought by now are lost. It sends the
// client all containers; from then on the client gets events.
func (v *server) hello(s *session, seq uint64) {
	for _, c := range v.containers.list() {
		c.acceptLoss()
	}

	s.order.Lock()
	defer s.order.Unlock()

	v.clients.add(s)
	for _, c := range v.containers.list() {
		status, files := c.share()
		err := s.conn.Send(wire.Message{Op: wire.OpContainer, Status: &status}, files)
		files.Close()
		if err != nil {
			return
		}
	}

	s.reply(seq, nil)
}

// dismiss ends the daemon, unless a container is left, and has its clients not start another one.
func (v *server) dismiss(s *session, seq uint64) {
	if err := v.retire(s, seq); err != nil {
		s.reply(seq, err)
	}
}

func (v *server) retire(s *session, seq uint64) error {
	if !v.lockIdle() {
		return errors.New("trivet-monitor is at work; try again")
	}

	err := v.containers.noneLeft()
	if err == nil {
		// A client that does not get the answer does not wait for it any more.
		err = s.conn.Send(wire.Message{Op: wire.OpReply, Seq: seq}, nil)
	}

	if err != nil {
		v.busy.Unlock()
		return err
	}

	// busy stays locked: a request that comes in from now on waits until the process has ended.
	log := v.containers.node.log
	log.Info("monitor was dismissed")
	v.clients.send(wire.Message{Op: wire.OpDismissed})
	if err := v.listener.Remove(); err != nil {
		log.Warn("remove the socket", "err", err)
	}

	close(v.dismissed)
	return nil
}

// idleWait is how long the end of requests is waited for that are being served. One whose answer has been
// sent is for a moment, too.
const idleWait = 5 * time.Second

// lockIdle locks busy once no request is being served; false if there always was one. It asks periodically,
// because requests that come in would have to wait behind somebody who waits for the lock.
func (v *server) lockIdle() bool {
	ctx, cancel := context.WithTimeout(context.Background(), idleWait)
	defer cancel()
	for range retry.Every(ctx, time.Millisecond) {
		if v.busy.TryLock() {
			return true
		}
	}
	return false
}
