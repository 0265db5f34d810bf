package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logjournal"
	"github.com/trivet-node/trivet/cri/monitor/reaper"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// node is what all containers share.
type node struct {
	stateDir string
	log      *slog.Logger
	cgroups  *cgroup.Host
	reaper   *reaper.Reaper
	runner   ociruntime.Runner
	journal  *logjournal.Journal
	clients  *clients

	// exits counts the exits of children that are on their way to a record or a client.
	exits sync.WaitGroup
}

// runtimeTimeout bounds one call of an OCI runtime.
const runtimeTimeout = 2 * time.Minute

// runtimeCall is one call of an OCI runtime.
type runtimeCall struct {
	runtime  ociruntime.Runtime
	verb, id string
	args     []string
	stdio    [3]int
	process  *heldProcess // for exec; nil: none
}

// call calls an OCI runtime, which dies with the monitor.
func (n *node) call(c runtimeCall) error {
	path, err := n.runner.Executable(c.runtime)
	if err != nil {
		return err
	}

	call, err := c.runtime.NewCall(c.verb, c.id)
	if err != nil {
		return err
	}
	defer call.Close()

	// The runtime finds its log and the process.json by these positions.
	command := reaper.Command{
		Path: path,
		Args: c.args,
		Files: []uintptr{
			uintptr(c.stdio[0]),
			uintptr(c.stdio[1]),
			uintptr(c.stdio[2]),
			call.Log().Fd(),
		},
		Timeout: runtimeTimeout,
	}
	if c.process != nil {
		command.Files = append(command.Files, c.process.read.Fd())
		command.Started = c.process.release
	}

	status, err := n.reaper.Do(command)

	// Only a runtime that ended by itself has refused; one that was killed may be asked again.
	switch {
	case errors.Is(err, reaper.ErrTimeout):
		return call.Abandoned(err)
	case err != nil:
		return fmt.Errorf("start OCI runtime %s: %w", c.runtime.Program, err)
	case status.Signaled():
		return call.Failed(fmt.Errorf("killed by %s", unix.SignalName(status.Signal())), nil)
	case status.ExitStatus() != 0:
		return call.Failed(ociruntime.ExitCode(status.ExitStatus()), nil)
	}

	return nil
}

// readPid reads the pid file that a runtime wrote.
func readPid(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("pid file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("pid file %s holds %q", path, data)
	}
	return pid, nil
}

// podKills returns how many OOM kills there were up to now in the group above a container's. cgroup v1 does
// not count them there, so the answer is 0.
func (n *node) podKills(group string) uint64 {
	if !n.cgroups.V2 || group == "" {
		return 0
	}
	kills, err := n.cgroups.OOMKills(path.Dir(group))
	if err != nil {
		return 0
	}
	return kills
}

// A monitor without free descriptors can neither make nor end a container, nor reopen a log. So what serves
// one client alone is refused before that, attaches first: a refused exec may be a probe, and cost a
// container its life. One of so many descriptors must be free:
const (
	freeForAttach = 2
	freeForExec   = 4
)

// checkDescriptors returns an error if fewer than one of share descriptors are free.
func checkDescriptors(share uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of descriptors: %w", err)
	}

	// A new descriptor gets the lowest number that is free: all below it are in use.
	lowest, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
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

// dup copies a descriptor, close-on-exec; -1 if it cannot.
func dup(fd int) int {
	if fd < 0 {
		return -1
	}
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return n
}
