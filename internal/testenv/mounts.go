package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// OwnMounts runs a package's tests in a mount namespace of their own, if it runs as root: what they mount is
// not seen by others, nor kept by a namespace that is cloned at that moment. Use it in TestMain:
// os.Exit(testenv.OwnMounts(m)).
func OwnMounts(m *testing.M) int { return InOwnMounts(m.Run) }

// InOwnMounts is OwnMounts for a TestMain that does more than run the tests, all of it in run.
func InOwnMounts(run func() int) int {
	const inside = "TRIVET_TEST_OWN_MOUNTS"
	if os.Geteuid() != 0 {
		return run()
	}

	if os.Getenv(inside) != "" {
		if err := takeControllers(); err != nil {
			fmt.Fprintln(os.Stderr, "take cgroup controllers:", err)
			return 1
		}

		return run()
	}

	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Unshareflags, unlike Cloneflags, also makes all mounts private.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1)
	}

	if err != nil {
		fmt.Fprintln(os.Stderr, "run tests in a mount namespace:", err)
		return 1
	}

	return 0
}

// takeControllers holds, on a host of cgroup v1 with v2 beside it, the controllers that the host has not
// mounted in a v1 hierarchy: they belong to the v2 hierarchy otherwise, and crun refuses to run while it has
// one. Another process may hold them at present, but perhaps not for as long as these tests take.
func takeControllers() error {
	if _, err := os.Stat("/sys/fs/cgroup/unified/cgroup.controllers"); errors.Is(err, os.ErrNotExist) {
		return nil
	}

	known, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return err
	}

	for line := range strings.Lines(string(known)) {
		// The fields are: name, hierarchy, groups, enabled.
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[3] != "1" || slices.Contains(neverListed, fields[0]) {
			continue
		}
		if _, err := os.Stat("/sys/fs/cgroup/" + fields[0]); err == nil {
			continue
		}
		if err := hold(fields[0]); err != nil {
			return fmt.Errorf("mount controller %s: %w", fields[0], err)
		}
	}

	return nil
}

// neverListed are controllers that the v2 hierarchy does not have, or always has without listing them.
var neverListed = []string{"net_cls", "net_prio", "perf_event", "freezer", "devices", "cpuacct"}

// hold keeps a v1 hierarchy until the process ends. An open directory is enough for that, so that no path is
// left behind.
func hold(controller string) error {
	dir, err := os.MkdirTemp("", "trivet-cgroup-")
	if err != nil {
		return err
	}
	if err := unix.Mount("cgroup", dir, "cgroup", 0, controller); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	_, err = unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir))
}
