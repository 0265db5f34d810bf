package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// OwnMounts runs a package's tests in a mount namespace of their own, if it runs as root: what they mount is neither seen nor, by a namespace
// that somebody else clones at that moment, kept. Use in TestMain: os.Exit(testenv.OwnMounts(m)).
func OwnMounts(m *testing.M) int { return InOwnMounts(m.Run) }

// InOwnMounts is OwnMounts for a TestMain that does more than run the tests: run does all of it.
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

// takeControllers mounts, on a host of cgroup v1, those controllers that no v1 hierarchy has: they are in the v2 hierarchy beside, and crun
// refuses to run while there is one. They go back when the mount namespace ends.
func takeControllers() error {
	data, err := os.ReadFile("/sys/fs/cgroup/unified/cgroup.controllers")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(data)) {
		dir, err := os.MkdirTemp("", "trivet-cgroup-")
		if err != nil {
			return err
		}
		if err := unix.Mount("cgroup", dir, "cgroup", 0, controller); err != nil {
			return errors.Join(fmt.Errorf("mount controller %s: %w", controller, err), os.Remove(dir))
		}
		// An open directory keeps the hierarchy; no path is needed, and none is left behind.
		if _, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)); err != nil {
			return err
		}
	}
	return nil
}
