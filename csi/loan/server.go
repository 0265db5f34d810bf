package loan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/socket"
)

const (
	// maxLoans is how many there are at once: each is a snapshot that takes room.
	maxLoans = 4

	// requestTimeout bounds the time in which a request has to come.
	requestTimeout = 10 * time.Second
)

// Volumes are the volumes of the node. It is a volume.Store.
type Volumes interface {
	Lend(ctx context.Context, id string, use func(volume.Spec) error) error
	Fill(ctx context.Context, r volume.Request, fill func(volume.Spec) error) (volume.Volume, error)
}

// Backend opens what a volume holds.
type Backend interface {
	// Mount returns a mount of the root directory that is not attached to any path.
	Mount(volume.Spec, target.Options) (*target.Tree, error)

	// OpenRaw opens the file of a raw block volume, with flags of open(2).
	OpenRaw(s volume.Spec, flags int) (*os.File, error)
}

// Config of a Server.
type Config struct {
	Volumes  Volumes
	Backends map[string]Backend // by name
	Log      *slog.Logger
}

// Server lends volumes.
type Server struct {
	cfg   Config
	slots chan struct{} // has a value for each loan
}

// New returns a Server. It starts nothing.
func New(cfg Config) *Server { return &Server{cfg: cfg, slots: make(chan struct{}, maxLoans)} }

// Run serves on a listener of socket.Listen until ctx ends, and returns when all loans have ended, which they
// do then. A socket that somebody removes is made again.
func (s *Server) Run(ctx context.Context, listener net.Listener, path string) error {
	var group sync.WaitGroup
	defer group.Wait()

	serve := func(l net.Listener) {
		stop := context.AfterFunc(ctx, func() { l.Close() })
		group.Go(func() {
			defer stop()
			s.accept(ctx, &group, l)
		})
	}

	serve(listener)
	if err := socket.Keep(ctx, listener, path, serve); err != nil {
		s.cfg.Log.Warn("a socket that is removed is not made again", "socket", path, "err", err)
	}

	<-ctx.Done()
	return socket.Remove(path)
}

func (s *Server) accept(ctx context.Context, group *sync.WaitGroup, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		group.Go(func() {
			defer conn.Close()
			s.serve(ctx, conn.(*net.UnixConn))
		})
	}
}

// serve serves one connection. When ctx ends, all that it waits for fails.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	var r request
	p := &peer{conn: conn}
	if err := conn.SetReadDeadline(time.Now().Add(requestTimeout)); err != nil {
		return
	}
	f, err := p.receive(&r)
	if err != nil || f != nil || conn.SetReadDeadline(time.Time{}) != nil {
		_ = closeFile(f)
		return
	}

	last, err := s.lend(ctx, p, r)
	if err != nil {
		s.cfg.Log.Warn("loan fails", "volume", r.Read, "err", err)
		last.Error = err.Error()
	}

	// An error means that the client is gone.
	_ = p.send(last, nil)
}

func (s *Server) lend(ctx context.Context, p *peer, r request) (reply, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return reply{}, fmt.Errorf("%w: %d volumes are lent already", volume.ErrUnavailable, maxLoans)
	}

	switch {
	case r.Make != nil:
		return s.make(ctx, p, *r.Make)
	case r.Read != "":
		return s.read(ctx, p, r.Read)
	}
	return reply{}, fmt.Errorf("%w: no volume is named", volume.ErrInvalid)
}

// read lends what a volume holds until the client is done, or gone.
func (s *Server) read(ctx context.Context, p *peer, id string) (reply, error) {
	var lent volume.Spec
	err := s.cfg.Volumes.Lend(ctx, id, func(spec volume.Spec) error {
		lent = spec
		content, err := s.open(spec, false)
		if err != nil {
			return err
		}
		if err := p.send(reply{Spec: spec}, content.file); err != nil {
			return errors.Join(err, content.close())
		}

		_, err = p.receive(&done{})
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return errors.Join(err, content.close())
	})
	return reply{Spec: lent}, err
}

var errNotDone = errors.New("the client has gone before the volume was filled")

// make lends a new volume, which is there when the client is done.
func (s *Server) make(ctx context.Context, p *peer, r volume.Request) (reply, error) {
	there := true
	v, err := s.cfg.Volumes.Fill(ctx, r, func(spec volume.Spec) error {
		there = false
		content, err := s.open(spec, true)
		if err != nil {
			return err
		}
		if err := p.send(reply{Spec: spec}, content.file); err != nil {
			return errors.Join(err, content.close())
		}

		var d done
		if _, err := p.receive(&d); err != nil || !d.Done {
			return errors.Join(errNotDone, content.close())
		}
		return errors.Join(content.sync(), content.close())
	})
	return reply{Spec: v.Spec, There: there}, err
}

// content is what a volume holds, opened.
type content struct {
	file *os.File
	tree *target.Tree // nil for a raw block volume
}

func (s *Server) open(spec volume.Spec, toWrite bool) (content, error) {
	backend := s.cfg.Backends[spec.Backend]
	if backend == nil {
		return content{}, fmt.Errorf("%w: backend %q cannot be read", volume.ErrUnavailable, spec.Backend)
	}

	if spec.Access == volume.Block {
		flags := os.O_RDONLY
		if toWrite {
			flags = os.O_RDWR
		}
		f, err := backend.OpenRaw(spec, flags)
		return content{file: f}, err
	}

	tree, err := backend.Mount(spec, target.Options{ReadOnly: !toWrite})
	if err != nil {
		return content{}, err
	}
	root, err := tree.Open()
	if err != nil {
		return content{}, errors.Join(err, tree.Close())
	}
	return content{file: root, tree: tree}, nil
}

// sync writes to the disk all that was written.
func (c content) sync() error {
	if c.tree == nil {
		return c.file.Sync()
	}
	if err := unix.Syncfs(int(c.file.Fd())); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

func (c content) close() error {
	err := c.file.Close()
	if c.tree != nil {
		err = errors.Join(err, c.tree.Close())
	}
	return err
}
