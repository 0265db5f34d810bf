package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A monitor without free descriptors can neither make nor end a container, nor open a log anew. So what
// serves one client alone is refused before that, attaches first: a refused exec may be a probe, and cost a
// container its life.
const (
	freeForAttach = 2 // one descriptor of so many must be free
	freeForExec   = 4
)

// room is an error when fewer than one of share descriptors are free.
func (d *Daemon) room(share uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of descriptors: %w", err)
	}

	// A copy gets the lowest number that is free: all below it are in use.
	lowest, err := unix.FcntlInt(d.stateLock.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("the monitor has no free descriptor: %w", err)
	}

	unix.Close(lowest)

	if uint64(lowest) > limit.Cur-limit.Cur/share {
		return fmt.Errorf("the monitor keeps its last descriptors (%d of %d are in use) for logs and exits",
			lowest, limit.Cur)
	}

	return nil
}
