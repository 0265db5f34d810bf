package loan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/program"
)

// errEnded is the driver's end while it lends.
var errEnded = errors.New("trivet-csi has ended in the middle of the call, which may be repeated")

// ErrNotReturned says that all went well, and the snapshot that was read is removed later.
var ErrNotReturned = errors.New("the snapshot that was read is removed when trivet-csi starts again")

// Read has use read what a volume or snapshot holds at this moment: its open root directory, or the open file
// of a raw block volume. The context ends when the driver has.
func Read(
	ctx context.Context,
	socket, id string,
	use func(ctx context.Context, s volume.Spec, content *os.File) error,
) error {
	l, err := borrow(ctx, socket, request{Read: id})
	if err != nil {
		return err
	}
	defer l.close()

	if l.content == nil {
		return fmt.Errorf("answer of trivet-csi has no content of volume %s", id)
	}
	if err := use(l.ctx, l.spec, l.content); err != nil {
		return err
	}

	if _, err := l.giveBack(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReturned, err)
	}
	return nil
}

// Make has fill fill a new volume, and returns that. One that an equal request made is not filled again,
// which there says.
func Make(
	ctx context.Context,
	socket string,
	r volume.Request,
	fill func(ctx context.Context, content *os.File) error,
) (s volume.Spec, there bool, err error) {
	l, err := borrow(ctx, socket, request{Make: &r})
	if err != nil {
		return volume.Spec{}, false, err
	}
	defer l.close()

	if l.there {
		return l.spec, true, nil
	}
	if l.content == nil {
		return volume.Spec{}, false, errors.New("answer of trivet-csi has no content of the new volume")
	}
	if err := fill(l.ctx, l.content); err != nil {
		return volume.Spec{}, false, err
	}

	s, err = l.giveBack()
	return s, false, err
}

// borrowed is what the driver lends.
type borrowed struct {
	peer    *peer
	spec    volume.Spec
	content *os.File // nil if there is none
	there   bool

	// ctx ends when the driver has, or says something else than that all is done.
	ctx    context.Context
	cancel context.CancelCauseFunc
	last   chan reply // has the reply to done; closed without one if the driver ends
}

func borrow(ctx context.Context, socket string, r request) (*borrowed, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, &program.CantRunError{
			What: "nobody serves " + socket + ": " + err.Error(),
			Do:   "start trivet-csi, or name its --state-dir",
		}
	}

	l := &borrowed{peer: &peer{conn: conn.(*net.UnixConn)}, last: make(chan reply, 1)}
	l.ctx, l.cancel = context.WithCancelCause(ctx)

	// Until the driver answers there is nothing else to wait for.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := l.begin(r); err != nil {
		l.close()
		return nil, errors.Join(err, context.Cause(ctx))
	}

	go l.watch()
	return l, nil
}

func (l *borrowed) begin(r request) error {
	if err := l.peer.send(r, nil); err != nil {
		return fmt.Errorf("%w: %w", errEnded, err)
	}

	var first reply
	content, err := l.peer.receive(&first)
	l.content = content
	switch {
	case errors.Is(err, io.EOF):
		return errEnded
	case err != nil:
		return fmt.Errorf("answer of trivet-csi: %w", err)
	case first.Error != "":
		return errors.New(first.Error)
	}

	l.spec, l.there = first.Spec, first.There
	return nil
}

// watch waits for the last reply. Until done was sent, there is one only if the driver ends.
func (l *borrowed) watch() {
	defer close(l.last)
	var last reply
	f, err := l.peer.receive(&last)
	if err != nil || f != nil {
		l.cancel(errors.Join(errEnded, closeFile(f)))
		return
	}
	if last.Error != "" {
		l.cancel(errors.New(last.Error))
	}
	l.last <- last
}

// giveBack says that all is done, and returns what the driver says then.
func (l *borrowed) giveBack() (volume.Spec, error) {
	if err := l.content.Close(); err != nil {
		return volume.Spec{}, err
	}
	if err := l.peer.send(done{Done: true}, nil); err != nil {
		return volume.Spec{}, fmt.Errorf("%w: %w", errEnded, err)
	}

	select {
	case last, ok := <-l.last:
		switch {
		case !ok:
			return volume.Spec{}, errEnded
		case last.Error != "":
			return volume.Spec{}, errors.New(last.Error)
		}
		return last.Spec, nil
	case <-l.ctx.Done():
		return volume.Spec{}, context.Cause(l.ctx)
	}
}

func (l *borrowed) close() {
	l.cancel(nil)
	l.peer.conn.Close()
	if l.content != nil {
		l.content.Close()
	}
}
