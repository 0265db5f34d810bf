// Package kubepods finds the processes of a node's pods by their control groups, and kills them: the way to
// be sure that no container runs when the runtime that has made it does not answer.
package kubepods

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mountinfo"
	"github.com/trivet-node/trivet/internal/retry"
)

// Group is the control group that the node's agent makes for all pods.
type Group struct {
	// Name is that of the group; empty: kubepods.
	Name string
}

// depth is how many groups may be above it, counted from the machine's own: agents have a setting for one,
// and what is deeper belongs to a node that runs in a container of this machine.
const depth = 1

// Kill kills all processes of the pods and returns when none is left.
func (g Group) Kill(ctx context.Context) error {
	pauses := retry.Backoff{First: 20 * time.Millisecond, Max: 500 * time.Millisecond}
	return retry.Until(ctx, pauses, func(context.Context) error {
		pids, err := g.Processes()
		if err != nil || len(pids) == 0 {
			return err
		}

		var failed error
		for _, pid := range pids {
			failed = errors.Join(failed, g.kill(pid))
		}
		return errors.Join(failed, fmt.Errorf("%d processes of pods live, of them %d", len(pids), pids[0]))
	})
}

// kill kills a process if it still is one of a pod.
func (g Group) kill(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)

	// The number may be another process's by now. From here on it is not.
	own, err := groups(1)
	if err != nil {
		return err
	}
	if still, err := g.has(pid, own); err != nil || !still {
		return err
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

// Processes are those of all pods that have not ended.
func (g Group) Processes() (pids []int, err error) {
	own, err := groups(1)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}

	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		member, err := g.has(pid, own)
		if err != nil {
			return nil, err
		}
		if member {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Using are the processes of pods whose root file system is an overlay with directories below one. What else
// they have mounted may be all of the machine.
func (g Group) Using(dir string) (using []int, err error) {
	pids, err := g.Processes()
	if err != nil {
		return nil, err
	}

	for _, pid := range pids {
		mounts, err := mountinfo.Of(pid)
		if gone(err) || errors.Is(err, unix.EINVAL) {
			// It has ended.
			continue
		}
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(mounts, func(m mountinfo.Mount) bool {
			return m.Point == "/" && m.FSType == "overlay" && strings.Contains(m.Options, dir+"/")
		}) {
			using = append(using, pid)
		}
	}
	return using, nil
}

// has reports whether a process is one of a pod and has not ended.
func (g Group) has(pid int, own map[string]string) (bool, error) {
	in, err := groups(pid)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}

	for hierarchy, path := range in {
		if g.isBelow(path, own[hierarchy]) {
			return alive(pid)
		}
	}
	return false, nil
}

// isBelow reports whether a path is in the group of pods of the machine whose own group is given.
func (g Group) isBelow(path, machine string) bool {
	name := g.Name
	if name == "" {
		name = "kubepods"
	}

	machine = strings.TrimSuffix(strings.TrimSuffix(machine, "/init.scope"), "/")
	below, ok := strings.CutPrefix(path, machine+"/")
	if !ok {
		return false
	}
	parts := strings.Split(below, "/")
	for _, part := range parts[:min(len(parts), depth+1)] {
		if part == name || part == name+".slice" || strings.HasSuffix(part, "-"+name+".slice") {
			return true
		}
	}
	return false
}

// groups are those of a process, by hierarchy: one with cgroup v2, many with v1.
func groups(pid int) (map[string]string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil, err
	}

	found := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 {
			found[fields[0]+":"+fields[1]] = fields[2]
		}
	}
	return found, nil
}

// alive reports whether a process has not ended: one that its parent has not asked for is none.
func alive(pid int) (bool, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}

	// The name, in parentheses, may have any bytes.
	_, after, _ := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	return !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X"), nil
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }
