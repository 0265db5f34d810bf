package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/program"
)

// lock makes this process the only agent below the root directory: two would undo each other's work. The lock
// is of the open file, so it ends with the process, however that ends. The file stays, as removing it would
// let two agents lock two files of one name.
func lock(root string) (*os.File, error) {
	if err := os.MkdirAll(root, 0o750); err != nil {
		return nil, err
	}

	path := filepath.Join(root, "trivet-node.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}

	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &program.CantRunError{
				What: fmt.Sprintf("another trivet-node runs with %s", root),
				Do:   "stop it or choose another --root-dir",
			}
		}

		return nil, fmt.Errorf("lock %s: %w", path, err)
	}

	return f, nil
}
