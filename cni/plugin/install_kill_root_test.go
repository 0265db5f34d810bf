package plugin_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/cni/install"
	"github.com/trivet-node/trivet/cni/plugin"
)

// installVariable makes the test binary install a program, whose path and whose directory are its arguments.
const installVariable = "TRIVET_TEST_INSTALL"

func installAs(args []string) (code int) {
	d := install.Directory{Path: args[2], Program: "trivet-cni"}
	if err := d.Install(args[1], plugin.Names()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// kill -9 at any system call of install: the next one leaves what it would have left.
func TestAnInstallThatWasKilledIsFinishedByTheNext(t *testing.T) {
	h := newHost(t, "")
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("ours"), 0o755); err != nil {
		t.Fatal(err)
	}

	run := func(dir string, number int) (calls int) {
		t.Helper()
		h.in(h.netns, func() (err error) {
			c := exec.Command("/proc/self/exe", source, dir)
			c.Env = append(os.Environ(), installVariable+"=1")
			calls, err = killedAt(c, number)
			return err
		})
		return calls
	}

	whole := t.TempDir()
	calls := run(whole, 0)
	want := filesIn(t, whole)
	if !slices.Contains(want, "bridge") || calls < 20 {
		t.Fatalf("%d calls made %v", calls, want)
	}

	step := max(1, calls/number(t, killsVariable, 6))
	for at := 1 + rand.IntN(step); at <= calls && !t.Failed(); at += step {
		dir := t.TempDir()
		run(dir, at)
		run(dir, 0)
		if got := filesIn(t, dir); !slices.Equal(got, want) {
			t.Errorf("killed at call %d of %d: %v, not %v", at, calls, got, want)
		}
	}
}

// filesIn lists all that is in a directory and below it.
func filesIn(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(dir, path)
		if relErr != nil {
			return relErr
		}
		all = append(all, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
