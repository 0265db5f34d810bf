package dockerhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/kind/ociwrapper"
	"github.com/trivet-node/trivet/e2e/leaks"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/testenv"
)

// TestMain lets the test program be what trivet-kind is otherwise: PID 1 of a machine, and an OCI runtime.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == ociwrapper.Name {
		fmt.Fprintln(os.Stderr, ociwrapper.Exec(os.Args[1:]))
		os.Exit(1)
	}

	if done, err := machine.Verb(context.Background(), os.Args[1:]); done {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// host is a Docker in a directory of the test, which leaves nothing.
func host(t *testing.T) *Own {
	t.Helper()
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	o := &Own{Dir: dir, Programs: filepath.Join(dir, "docker")}
	before, err := leaks.TakeSnapshot()
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := o.Down(context.Background()); err != nil {
			t.Error(err)
		}

		left, err := o.Leaks()
		after, snapErr := leaks.TakeSnapshot()
		if left = append(left, changes(before, after)...); len(left) > 0 || err != nil || snapErr != nil {
			t.Errorf("left: %v %v", leaks.Error(left), errors.Join(err, snapErr))
		}
	})

	if err := o.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := o.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return o
}

// changes are what has come to the host. A loop device on a deleted file is of a test of volumes, which goes
// on at the same time: Docker has none.
func changes(before, after leaks.Snapshot) []leaks.Leak {
	after.Loops = nil
	return after.Since(before)
}

// docker runs a command of Docker's, from outside the machine.
func (o *Own) docker(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(o.Programs, "usr/bin/docker"), args...)
	cmd.Env = append(os.Environ(), o.Environ()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// A node of kind is a privileged container, which Docker starts again after a crash.
func TestPrivilegedContainerRunsOnAHostWithoutDockerAlsoAfterAReboot(t *testing.T) {
	o := host(t)
	root := t.TempDir()
	testenv.BusyboxRoot(t, root)
	tar := filepath.Join(t.TempDir(), "root.tar")
	pack := exec.CommandContext(t.Context(), "tar", "-C", root, "-cf", tar, ".")
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}

	o.docker(t, "import", tar, "busybox")
	id := o.docker(t, "run", "--detach", "--privileged", "--restart=on-failure:1",
		"--volume=/lib/modules:/lib/modules:ro", "busybox", "sleep", "1000")
	if got := o.docker(t, "exec", id, "sh", "-c", "echo kept >/kept; echo inside"); got != "inside" {
		t.Errorf("exec: %q", got)
	}

	if err := o.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := o.docker(t, "exec", id, "cat", "/kept"); got != "kept" {
		t.Errorf("after a reboot: %q", got)
	}
}

func TestUpIsRepeatedAfterAKillOfTheDaemon(t *testing.T) {
	o := host(t)
	if err := o.machine().KillProgram("dockerd"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := o.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	if version := o.docker(t, "version", "--format={{.Server.Version}}"); version == "" {
		t.Error("no version")
	}
}
