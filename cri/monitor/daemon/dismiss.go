package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// dismiss ends the daemon if no container is left, and tells the clients not to start another. Once it has
// agreed it takes no further request.
func (d *Daemon) dismiss(s *session, seq uint64) {
	d.busy.Lock()
	err := d.idle()
	if err != nil {
		d.busy.Unlock()
		s.conn.Send(wire.Message{Op: wire.OpReply, Seq: seq, Fail: wire.FailOf(err)}, nil)
		return
	}

	// busy stays locked: what comes in from now on waits until the process has ended.
	d.log.Info("monitor was dismissed")
	d.tell(wire.Message{Op: wire.OpDismissed})
	if err := os.Remove(d.listen.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("remove the socket", "err", err)
	}
	s.conn.Send(wire.Message{Op: wire.OpReply, Seq: seq}, nil)
	close(d.dismissed)
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
