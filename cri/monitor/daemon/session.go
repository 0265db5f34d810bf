package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/output"
	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// session is one client's connection.
type session struct {
	conn *wire.Conn
	// order is held while the list of containers is sent, so that no event overtakes it.
	order sync.Mutex
}

func (s *session) event(m wire.Message) {
	s.order.Lock()
	defer s.order.Unlock()

	// a client that is gone asks again when it is back
	s.conn.Send(m, nil)
}

// serve reads a client's requests until it is gone.
func (d *Daemon) serve(sock *net.UnixConn) {
	s := &session{conn: wire.NewConn(sock)}
	defer func() {
		d.mu.Lock()
		delete(d.sessions, s)
		d.mu.Unlock()
		s.conn.Close()
	}()

	for {
		m, files, err := s.conn.Receive()
		if err != nil {
			return
		}

		switch m.Op {
		case wire.OpAdopt:
			d.adopt(m.ID, files)
			files.Close()
		case wire.OpHello:
			files.Close()
			d.greet(s, m.Seq)
		case wire.OpDismiss:
			files.Close()
			go d.dismiss(s, m.Seq)
		default:
			go d.request(s, m, files)
		}
	}
}

// request carries out one request and answers it. An upgrade waits for it.
func (d *Daemon) request(s *session, m wire.Message, files wire.Files) {
	d.busy.RLock()
	defer d.busy.RUnlock()
	defer files.Close()

	reply := wire.Message{Op: wire.OpReply, Seq: m.Seq}
	var err error
	switch m.Op {
	case wire.OpCreate:
		d.create(s, m)
		return
	case wire.OpExec:
		d.exec(s, m, files)
		return
	case wire.OpForget:
		err = d.forget(m.ID, m.Deleted)
	case wire.OpReopenLog:
		err = d.reopenLog(m.ID)
	case wire.OpAttach:
		err = d.attach(m.ID, files)
	case wire.OpCloseStdin:
		err = d.closeStdin(m.ID)
	default:
		err = fmt.Errorf("monitor knows no request %q", m.Op)
	}

	reply.Fail = wire.FailOf(err)
	s.conn.Send(reply, nil)
}

// greet ends the hand-back: what nobody has brought is lost. It tells the client of all containers, and from
// now on of exits.
func (d *Daemon) greet(s *session, seq uint64) {
	for _, c := range d.all() {
		d.giveUp(c)
	}

	s.order.Lock()
	defer s.order.Unlock()

	d.mu.Lock()
	d.sessions[s] = struct{}{}
	d.mu.Unlock()
	for _, c := range d.all() {
		status, files := c.share()
		err := s.conn.Send(wire.Message{Op: wire.OpContainer, Status: &status}, files)
		files.Close()
		if err != nil {
			return
		}
	}

	s.conn.Send(wire.Message{Op: wire.OpReply, Seq: seq}, nil)
}

// reopenLog opens the log of a container anew after a rotation.
func (d *Daemon) reopenLog(id string) error {
	c, err := d.lookup(id)
	if err != nil {
		return err
	}
	if c.log == nil {
		return nil
	}
	return c.log.Reopen()
}

// closeStdin gives up our writing end; the container sees the end of its stdin when the client has given up
// its own.
func (d *Daemon) closeStdin(id string) error {
	c, err := d.lookup(id)
	if err != nil {
		return err
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	c.record.StdinClosed = true
	if c.stdin >= 0 {
		unix.Close(c.stdin)
		c.stdin = -1
	}

	return c.save()
}

// attach copies the container's output to the descriptors from now on.
func (d *Daemon) attach(id string, files wire.Files) error {
	c, err := d.lookup(id)
	if err != nil {
		return err
	}

	c.mu.Lock()
	exited := c.record.Exit != nil
	c.mu.Unlock()
	if exited {
		return fmt.Errorf("attach to container %s: %w", id, wire.ErrExited)
	}
	if err := d.room(freeForAttach); err != nil {
		return fmt.Errorf("attach to container %s: %w", id, err)
	}

	for name, st := range map[string]*output.Stream{wire.FdOut: c.stdout, wire.FdErr: c.stderr} {
		if fd := files.Take(name); fd >= 0 {
			if err := st.Attach(fd); err != nil {
				return fmt.Errorf("attach to container %s: %w", id, err)
			}
		}
	}

	return nil
}

// dismiss ends the daemon if no container is left, and tells the clients not to start another. It does not
// wait for requests in flight, as those that come later would have to wait with it.
func (d *Daemon) dismiss(s *session, seq uint64) {
	if err := d.retire(s, seq); err != nil {
		s.conn.Send(wire.Message{Op: wire.OpReply, Seq: seq, Fail: wire.FailOf(err)}, nil)
	}
}

func (d *Daemon) retire(s *session, seq uint64) error {
	if !d.busy.TryLock() {
		return errors.New("trivet-monitor is at work; try again")
	}

	if err := d.idle(); err != nil {
		d.busy.Unlock()
		return err
	}

	if err := s.conn.Send(wire.Message{Op: wire.OpReply, Seq: seq}, nil); err != nil {
		d.busy.Unlock()

		// whoever asked has given up
		return err
	}

	// busy stays locked: a request that comes in from now on waits until the process has ended.
	d.log.Info("monitor was dismissed")
	d.tell(wire.Message{Op: wire.OpDismissed})
	if err := os.Remove(d.listen.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("remove the socket", "err", err)
	}

	close(d.dismissed)
	return nil
}

// idle fails while there is a container, even one whose undoing has failed.
func (d *Daemon) idle() error {
	left, err := os.ReadDir(filepath.Join(d.cfg.StateDir, "containers"))
	if err != nil {
		return fmt.Errorf("look for containers: %w", err)
	}
	if len(left) > 0 {
		return fmt.Errorf("%d containers are left, such as %s", len(left), left[0].Name())
	}
	return nil
}
