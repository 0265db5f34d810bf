// Package memoryalarm tells when the memory of a node may have become short, as soon as the kernel knows it.
// What it says is a reason to look, and no more. It uses, where they exist:
//
//   - thresholds of the usage of control groups (cgroup v1, memory.usage_in_bytes),
//   - stalls of tasks that wait for memory, of the machine and of all pods (psi(5)) or, without those, the
//     pressure level of cgroup v1 (memory.pressure_level),
//   - that the pods have come to their limit (cgroup v2, memory.events).
//
// A process that waits for a sign does not run, and neither does one of its threads wait.
package memoryalarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/cgroup"
)

// Aim is a usage of memory that is not to go by unseen.
type Aim struct {
	// Group is a control group, as a path from the root of the hierarchies.
	Group string

	// Now and Limit are usages in bytes, page cache included: that of now, and the one to know of.
	Now   int64
	Limit int64
}

// Alarm gives a sign when memory may have become short. It is safe for concurrent use.
type Alarm struct {
	host  *cgroup.Host
	log   *slog.Logger
	signs chan struct{}

	// events is an epoll(7) set of the sources, which Go's poller waits for.
	events *os.File

	// mu guards what follows. No source is closed without it.
	mu      sync.Mutex
	sources map[int32]source
	aims    map[string]aimed
}

// source is a descriptor on which the kernel reports.
type source struct {
	name string

	// counted means that what was reported is to be read.
	counted bool
}

// aimed is a threshold that the kernel knows of.
type aimed struct {
	usage int64
	fd    int
}

// Open opens what the kernel has to report on the machine, and on a control group of all pods, which must be
// there.
func Open(host *cgroup.Host, pods string, log *slog.Logger) (*Alarm, error) {
	a, err := open(host, log)
	if err != nil {
		return nil, err
	}

	a.openSources(pods)
	return a, nil
}

// open opens an alarm that has no source yet.
func open(host *cgroup.Host, log *slog.Logger) (*Alarm, error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory alarm: %w", err)
	}
	if err := unix.SetNonblock(set, true); err != nil {
		return nil, errors.Join(fmt.Errorf("memory alarm: %w", err), unix.Close(set))
	}

	return &Alarm{
		host:    host,
		log:     log,
		signs:   make(chan struct{}, 1),
		events:  os.NewFile(uintptr(set), "memory alarm"),
		sources: map[int32]source{},
		aims:    map[string]aimed{},
	}, nil
}

// Signs has something when memory may have become short since it was last received from.
func (a *Alarm) Signs() <-chan struct{} { return a.signs }

// Run gives signs until ctx ends, and closes the alarm.
func (a *Alarm) Run(ctx context.Context) {
	defer a.close()

	// The wait has no other end.
	stop := context.AfterFunc(ctx, func() { _ = a.events.SetReadDeadline(time.Unix(0, 1)) })
	defer stop()

	conn, err := a.events.SyscallConn()
	for err == nil && ctx.Err() == nil {
		reported := false
		err = conn.Read(func(set uintptr) bool {
			reported = a.take(int(set))
			return reported
		})
		if reported {
			a.sign()
		}
	}

	if ctx.Err() == nil {
		a.log.Warn("changes of memory are not reported any more", "err", err)
	}
}

// sign gives a sign, unless one waits to be seen.
func (a *Alarm) sign() {
	select {
	case a.signs <- struct{}{}:
	default:
	}
}

// take takes what the sources have reported, and reports whether they have.
func (a *Alarm) take(set int) (reported bool) {
	a.mu.Lock()
	defer a.mu.Unlock()

	var events [8]unix.EpollEvent
	for {
		count, err := unix.EpollWait(set, events[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || count == 0 {
			return reported
		}

		for _, e := range events[:count] {
			s, known := a.sources[e.Fd]
			if !known {
				continue
			}

			reported = true
			if s.counted {
				var buf [4096]byte
				_, _ = unix.Read(int(e.Fd), buf[:])
			} else if e.Events&unix.EPOLLERR != 0 {
				// Its control group is gone.
				a.drop(int(e.Fd))
			}
		}
	}
}

// add has a descriptor waited for.
func (a *Alarm) add(fd int, s source, events uint32) error {
	a.mu.Lock()
	defer a.mu.Unlock()

	conn, err := a.events.SyscallConn()
	if err != nil {
		return err
	}

	ctl := conn.Control(func(set uintptr) {
		err = unix.EpollCtl(int(set), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	})
	if err = errors.Join(ctl, err); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}

	a.sources[int32(fd)] = s
	return nil
}

// drop closes a source, which ends the wait for it. The caller holds the lock.
func (a *Alarm) drop(fd int) {
	delete(a.sources, int32(fd))
	unix.Close(fd)
}

func (a *Alarm) close() {
	a.mu.Lock()
	defer a.mu.Unlock()

	for fd := range a.sources {
		a.drop(int(fd))
	}

	a.events.Close()
}
