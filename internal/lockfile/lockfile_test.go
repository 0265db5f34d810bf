package lockfile_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/program"
)

// TestMain lets the test binary stand in for another process that holds a lock until its stdin ends.
func TestMain(m *testing.M) {
	path := os.Getenv("LOCKFILE_TEST_TAKE")
	if path == "" {
		os.Exit(m.Run())
	}

	file, err := lockfile.Take(context.Background(), path, "the test's directory")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}

	fmt.Println("taken")
	io.Copy(io.Discard, os.Stdin)
	file.Close()
}

// otherProcess starts a process that holds the lock at path.
func otherProcess(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "LOCKFILE_TEST_TAKE="+path)
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}

	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		stdin.Close()
		other.Wait()
	})

	said := make([]byte, 64)
	if n, err := stdout.Read(said); err != nil || string(said[:n]) != "taken\n" {
		t.Fatalf("the other process said %q, %v", said[:n], err)
	}

	return other
}

func TestTheErrorNamesWhatIsHeldAndTheProcessThatHoldsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	other := otherProcess(t, path)

	_, err := lockfile.Take(t.Context(), path, "data directory /data (--data-dir)")
	if _, ok := errors.AsType[*program.CantRunError](err); !ok {
		t.Fatalf("the lock of another process: %v, want a CantRunError", err)
	}
	if !strings.Contains(err.Error(), "data directory /data (--data-dir) is in use by ") {
		t.Errorf("%v does not name what is in use", err)
	}
	if strings.Contains(err.Error(), "another process") {
		t.Skipf("the filesystem of %s numbers its device otherwise in /proc/locks: %v", path, err)
	}
	if pid := fmt.Sprintf("process %d (", other.Process.Pid); !strings.Contains(err.Error(), pid) {
		t.Errorf("%v, want it to name %s)", err, pid)
	}
}

func TestTheLockOfAKilledProcessIsTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	other := otherProcess(t, path)
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	// How long a killed process takes to end is up to the machine; its parent reaps it in the end.
	if _, err := other.Process.Wait(); err != nil {
		t.Fatal(err)
	}

	file, err := lockfile.Take(t.Context(), path, "the test's directory")
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
}

func TestALockThatIsReleasedWithinTheGracePeriodIsTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	synctest.Test(t, func(t *testing.T) {
		first, err := lockfile.Take(t.Context(), path, "the test's directory")
		if err != nil {
			t.Fatal(err)
		}

		release := time.AfterFunc(lockfile.Grace/10, func() { first.Close() })
		defer release.Stop()

		second, err := lockfile.Take(t.Context(), path, "the test's directory")
		if err != nil {
			t.Fatal(err)
		}

		second.Close()
	})
}

func TestTakeEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockfile.Take(t.Context(), path, "the test's directory")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()

	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("the program was asked to stop")
	cancel(stopped)
	if _, err := lockfile.Take(ctx, path, "the test's directory"); !errors.Is(err, stopped) {
		t.Errorf("Take returned %v, want the cause of the end of its context", err)
	}
}

func TestALockThatCannotBeOpenedIsAnErrorAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "lock")
	if _, err := lockfile.Take(t.Context(), path, "the test's directory"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Take returned %v, want that the directory does not exist", err)
	}
}

func TestAwaitTriesUntilTheGracePeriodIsOver(t *testing.T) {
	for _, test := range []struct {
		name  string
		after time.Duration
		want  bool
	}{
		{"free at once", 0, true},
		{"free within the grace period", lockfile.Grace / 2, true},
		{"never free", 10 * lockfile.Grace, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				free := func() bool { return time.Since(start) >= test.after }
				if got := lockfile.Await(t.Context(), free); got != test.want {
					t.Errorf("Await reported %v, want %v", got, test.want)
				}
				if took := time.Since(start); took > lockfile.Grace {
					t.Errorf("Await took %s, want at most %s", took, lockfile.Grace)
				}
			})
		})
	}
}
