package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loops lists loop devices whose backing file lies (or lay) below the state directory: device -> file.
func (c *Cluster) loops() (map[string]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // detached meanwhile
		}
		backing := strings.TrimSpace(string(data))
		// A file that was reached through a node's mounts is shown with its path there.
		if strings.HasPrefix(backing, c.Dir+"/") || strings.HasPrefix(backing, "/keep/") {
			out["/dev/"+strings.Split(f, "/")[3]] = backing
		}
	}
	return out, nil
}

// detachLoops frees the loop devices that a killed node has left.
func (c *Cluster) detachLoops() error {
	loops, err := c.loops()
	if err != nil {
		return err
	}
	var errs []error
	for dev := range loops {
		f, err := os.OpenFile(dev, os.O_RDWR, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
			errs = append(errs, fmt.Errorf("detach %s: %w", dev, err))
		}
		f.Close()
	}
	return errors.Join(errs...)
}

// Leaks lists what a cluster that is down has left on the host: processes, mounts, cgroups, loop devices.
func (c *Cluster) Leaks() ([]string, error) {
	var out []string
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		argv, err := os.ReadFile(p)
		pid := strings.Split(p, "/")[2]
		if err != nil || pid == fmt.Sprint(os.Getpid()) {
			continue
		}
		if strings.Contains(string(argv), c.path("machines")) || strings.Contains(string(argv), ProxyVerb+"\x00"+c.Dir+"\x00") {
			out = append(out, fmt.Sprintf("process %s: %s", pid, strings.ReplaceAll(string(argv), "\x00", " ")))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, c.path("machines")) {
			out = append(out, "mount: "+strings.TrimSpace(line))
		}
	}
	groups, err := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/trivet-%x", hash(c.Dir)))
	if err != nil {
		return nil, err
	}
	v2, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/trivet-%x", hash(c.Dir)))
	for _, g := range append(groups, v2...) {
		out = append(out, "cgroup: "+g)
	}
	loops, err := c.loops()
	if err != nil {
		return nil, err
	}
	for dev, file := range loops {
		out = append(out, fmt.Sprintf("loop device: %s on %s", dev, file))
	}
	return out, nil
}
