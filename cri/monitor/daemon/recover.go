package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/handover"
	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/durable"
)

// recover takes over the containers of an earlier monitor that was killed, or of this process before an
// upgrade. A problem with one container does not keep the others from being taken over.
func (cs *containers) recover(inherited handover.Descriptors) {
	defer inherited.Close()

	n := cs.node
	if err := n.removeExecFiles(); err != nil {
		n.log.Warn("files of earlier execs stay", "err", err)
	}

	found := cs.records()
	for _, err := range n.journal.Recover(streamsOf(n.stateDir, found)) {
		n.log.Error("output of a killed monitor", "err", err)
	}

	for _, r := range found {
		c := newContainer(n, r)
		close(c.announced)

		// The monitor that began to make it was killed, and no client knows that it exists.
		if r.Creating {
			if err := c.undo(); err != nil {
				n.log.Error("container that was not made completely stays", "container", r.ID, "err", err)
			}

			continue
		}

		cs.put(c)
		if err := c.resume(inherited); err != nil {
			n.log.Error("container is not served completely", "container", r.ID, "err", err)
		}
	}
}

// records reads all records. A directory with a record that cannot be read is renamed and kept.
func (cs *containers) records() map[string]record {
	log := cs.node.log
	dir := filepath.Join(cs.node.stateDir, "containers")
	entries, err := os.ReadDir(dir)
	if err != nil {
		log.Error("read records", "err", err)
		return nil
	}

	found := map[string]record{}
	for _, e := range entries {
		if !durable.ValidName(e.Name()) || !e.IsDir() {
			continue
		}

		r, err := readRecord(cs.node.stateDir, e.Name())
		switch {
		case errors.Is(err, os.ErrNotExist):
			// The record is written first and removed last: nothing of the container was made, or is left.
			os.RemoveAll(filepath.Join(dir, e.Name()))
		case err != nil:
			log.Error("record is set aside", "container", e.Name(), "err", err)
			aside := filepath.Join(dir, ".torn-"+e.Name())
			if err := os.Rename(filepath.Join(dir, e.Name()), aside); err != nil {
				log.Error("record cannot be set aside", "container", e.Name(), "err", err)
			}
		default:
			found[r.ID] = r
		}
	}

	return found
}

// readRecord reads the record of a container. ErrNotExist when there is none.
func readRecord(stateDir, id string) (record, error) {
	var r record
	data, err := os.ReadFile(filepath.Join(wire.ContainerDir(stateDir, id), recordFile))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, err
	}
	if r.ID != id {
		return r, fmt.Errorf("record of container %s has the ID %q", id, r.ID)
	}

	return r, nil
}

// streamsOf finds the FIFO and the log of a stream by its key in the journal, "ID/FIFO".
func streamsOf(stateDir string, records map[string]record) func(key string) (fifo, log string, ok bool) {
	return func(key string) (string, string, bool) {
		id, name, _ := strings.Cut(key, "/")
		r, ok := records[id]
		if !ok {
			return "", "", false
		}
		return filepath.Join(wire.ContainerDir(stateDir, id), name), r.LogPath, true
	}
}

// resume serves a container that an earlier monitor made.
func (c *container) resume(inherited handover.Descriptors) error {
	if c.record.Exit != nil {
		close(c.ended)
		return nil
	}

	// Even without its log, a container must not be blocked by a full FIFO.
	err := errors.Join(c.openLog(), c.openStreams())
	c.out.pump(c.node.journal)

	if tty, ok := inherited.Take(handTerminal + c.id); ok {
		c.setTerminal(tty)
	}

	if stdin, ok := inherited.Take(handStdin + c.id); ok {
		c.fds.stdin = stdin
	} else if c.record.StdinOnce && !c.record.StdinClosed && !c.record.TTY {
		// ENXIO: nobody reads it any more.
		c.fds.stdin, _ = unix.Open(c.path(wire.StdinFIFO), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}

	c.resumeProcess()
	return err
}

// resumeProcess finds out how the container's first process is waited for from now on.
func (c *container) resumeProcess() {
	pid, reaper := c.record.Pid, c.node.reaper
	fd, alive := findProcess(pid, c.record.StartTime)
	c.fds.pid = fd

	// After an upgrade it is still a child.
	if parent, err := pidfd.Parent(pid); alive && err == nil && parent == os.Getpid() {
		reaper.Claim(pid, fd, c.childEnded)
		return
	}

	// A child that ended during an upgrade, or just now, has been reaped.
	if status, ended := reaper.Unclaimed(pid, fd); ended {
		c.childEnded(status)
		return
	}

	if alive {
		go c.watch(fd, pid)
		return
	}

	c.statusLost = true
}

// findProcess opens the process that had the PID at that start time, if it is still there, be it as a zombie.
func findProcess(pid int, startTime uint64) (fd int, alive bool) {
	fd, err := pidfd.Open(pid)
	if err != nil {
		return -1, false
	}
	start, err := pidfd.StartTime(pid)
	if err != nil || start != startTime {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}
