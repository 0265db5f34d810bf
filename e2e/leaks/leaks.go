// Package leaks finds what must not be there: on the host after a cluster went down (processes, mounts,
// cgroups, loop devices, links, nft tables, files), and on a running node for pods that no longer exist
// (mounts, pinned namespaces, cgroups, veths, addresses, processes, directories). It only looks; it never
// cleans up.
package leaks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// Leak is one thing that was left behind.
type Leak struct {
	// process, mount, cgroup, loop device, link, nft table or element, address, veth, directory, record,
	// volume, namespace, sysctl
	Kind string
	What string
}

func (l Leak) String() string { return l.Kind + " " + l.What }

// Error lists leaks, one a line.
type Error []Leak

func (e Error) Error() string {
	lines := make([]string, 0, len(e)+1)
	lines = append(lines, fmt.Sprintf("%d left behind:", len(e)))
	for _, l := range e {
		lines = append(lines, "  "+l.String())
	}
	return strings.Join(lines, "\n")
}

// Await looks until nothing is left or the limit is over: those who clean up may do so a moment after the API
// says that a pod is gone. Then it returns what is left as an Error.
func Await(ctx context.Context, limit time.Duration, look func() ([]Leak, error)) error {
	deadline, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	var left []Leak
	for range retry.Every(deadline, 100*time.Millisecond) {
		var err error
		if left, err = look(); err != nil || len(left) == 0 {
			return err
		}
	}

	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	return Error(left)
}

// process is what /proc shows of one.
type process struct {
	pid     int
	command string
	cwd     string
	groups  []string // paths in the cgroup hierarchies
	mntNS   string
	pidNS   string
}

// processes lists all that this PID namespace sees; those that end meanwhile are left out.
func processes() ([]process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}

	var out []process
	for _, d := range dirs {
		p := process{}
		if _, err := fmt.Sscanf(filepath.Base(d), "%d", &p.pid); err != nil {
			continue
		}

		cmdline, err := os.ReadFile(filepath.Join(d, "cmdline"))

		// It is gone, a zombie or a kernel thread.
		if err != nil || len(cmdline) == 0 {
			continue
		}

		p.command = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
		p.cwd, _ = os.Readlink(filepath.Join(d, "cwd"))
		p.mntNS, _ = os.Readlink(filepath.Join(d, "ns", "mnt"))
		p.pidNS, _ = os.Readlink(filepath.Join(d, "ns", "pid"))
		groups, _ := os.ReadFile(filepath.Join(d, "cgroup"))
		for line := range strings.Lines(string(groups)) {
			if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
				p.groups = append(p.groups, parts[2])
			}
		}

		out = append(out, p)
	}

	return out, nil
}

func (p process) String() string {
	command := p.command
	if len(command) > 120 {
		command = command[:120] + "..."
	}
	return fmt.Sprintf("%d: %s", p.pid, command)
}

// inGroup reports whether the process is in the cgroup or below it, in any hierarchy.
func (p process) inGroup(group string) bool {
	return slices.ContainsFunc(p.groups, func(g string) bool { return within(g, group) })
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// entries are the names in a directory; none when it is not there.
func entries(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}

	names := make([]string, 0, len(list))
	for _, e := range list {
		names = append(names, e.Name())
	}

	return names, nil
}
