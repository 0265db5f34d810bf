package monitor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
)

// TestKillsUnderLoadLeakNothing kills the monitor repeatedly while containers are made, used and
// deleted.
func TestKillsUnderLoadLeakNothing(t *testing.T) {
	runtimes(t, func(t *testing.T, name string) {
		e, c := setup(t)
		rt := e.Runtime(t, name)
		stop, stopped := make(chan struct{}), make(chan int)
		go func() {
			kills := 0
			for {
				select {
				case <-stop:
					stopped <- kills
					return

				// The life of the monitor gets longer, so that a slow machine gets through as well.
				case <-time.After(time.Duration(40+kills%9*20+4*kills) * time.Millisecond):
					monitortest.KillMonitor(t, e.Config.Socket)
					kills++
				}
			}
		}()

		const n = 24
		parallel(t, n, 4, func(i int) error {
			id := fmt.Sprintf("c%d", i)
			want := e.Container(
				t,
				id,
				rt,
				sh(fmt.Sprintf("echo start; sleep 0.0%d; echo end; exit %d", i%10, i+1)),
				nil,
			)
			if err := life(t, c, want, i+1); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			if got := monitortest.LogText(t, want.LogPath, "stdout"); got != "start\nend\n" {
				return fmt.Errorf("%s: log %q", id, got)
			}

			return nil
		})

		close(stop)
		t.Logf("%d kills", <-stopped)
		if left, _ := os.ReadDir(e.Config.StateDir + "/containers"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if left, _ := os.ReadDir(rt.Root); len(left) > 0 {
			t.Errorf("left behind by the runtime: %v", left)
		}
	})
}

// life takes a container from creation to deletion. An exec may fail when the monitor is killed under it, but
// then it says so.
func life(t *testing.T, c *monitor.Client, want monitor.Container, code int) error {
	ctx := t.Context()
	if _, err := c.Create(ctx, want); err != nil {
		return err
	}
	if err := c.Start(ctx, want.ID); err != nil {
		return err
	}

	ex, err := c.Exec(
		ctx,
		monitor.ExecConfig{
			ID:      want.ID,
			Process: specs.Process{Args: sh("exit 3"), Cwd: "/", Env: []string{"PATH=/bin"}},
		},
	)
	if err == nil {
		exit, err := ex.Wait(ctx)

		// 137: the container ended first
		if err != nil || !exit.Unknown && exit.Code != 3 && exit.Code != 137 {
			return fmt.Errorf("exec: %+v, %w", exit, err)
		}

		ex.Close()
	}

	exit, err := c.Wait(ctx, want.ID)
	if err != nil {
		return err
	}

	checkCode(t, exit, code)
	return c.Delete(ctx, want.ID)
}

// A full disk or a runtime that was killed can leave state that the runtime cannot read.
func TestContainerThatItsRuntimeCannotDeleteIsTakenApart(t *testing.T) {
	runtimes(t, func(t *testing.T, name string) {
		e, c := setup(t)
		want := e.Container(t, "broken", e.Runtime(t, name), sh("sleep 1000"), nil)
		start(t, c, want)

		// The state of crun and of runc.
		for _, state := range []string{"status", "state.json"} {
			path := filepath.Join(want.Runtime.Root, want.ID, state)
			if _, err := os.Stat(path); err == nil {
				if err := os.Truncate(path, 0); err != nil {
					t.Fatal(err)
				}
			}
		}

		if err := c.Delete(t.Context(), want.ID); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(want.Runtime.Root); len(left) > 0 {
			t.Errorf("left behind by the runtime: %v", left)
		}
	})
}
