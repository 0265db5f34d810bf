package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// watchful is an OCI runtime that notes, before each deletion, which processes are in the container's cgroup.
// With fail-create beside it, it fails after it has made a container.
const watchful = `#!/bin/sh
case "$*" in
*" delete "*) { cat %[2]s/cgroup.procs; echo deleted; } >>%[1]s/deletions ;;
*" create "*) if [ -e %[1]s/fail-create ]; then crun "$@"; exit 1; fi
esac
exec crun "$@"
`

// With systemd as the cgroup driver, a process that is about to end in a scope that is stopped can keep
// systemd waiting for 90 seconds, after which the scope has failed.
func TestRuntimeDeletesOnlyContainersInWhichNothingRuns(t *testing.T) {
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	e, c := setup(t)
	rt := e.Runtime(t, "crun")
	rt.Program = filepath.Join(e.Dir, "watchful")
	container := func(id string) monitor.Container {
		want := e.Container(t, id, rt, sh("sleep 1000"), nil)
		script := fmt.Appendf(nil, watchful, e.Dir, host.Dir("memory", want.Cgroup))
		if err := os.WriteFile(rt.Program, script, 0o755); err != nil {
			t.Fatal(err)
		}

		return want
	}

	for name, life := range map[string]func(id string){
		"created": func(id string) {
			if _, err := c.Create(t.Context(), container(id)); err != nil {
				t.Fatal(err)
			}
		},
		"running": func(id string) { start(t, c, container(id)) },
		"failed": func(id string) {
			want := container(id)
			if err := os.WriteFile(filepath.Join(e.Dir, "fail-create"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Create(t.Context(), want); err == nil {
				t.Error("a container was created by a runtime that failed")
			}
			if err := os.Remove(filepath.Join(e.Dir, "fail-create")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		life(name)
		if err := c.Delete(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}

		noted, err := os.ReadFile(filepath.Join(e.Dir, "deletions"))
		if err != nil || string(noted) != "deleted\n" {
			t.Errorf("%s: processes at its deletion: %q, %v", name, noted, err)
		}
		if err := os.Remove(filepath.Join(e.Dir, "deletions")); err != nil {
			t.Fatal(err)
		}
	}
}

// What a runtime leaves outside its state and the cgroup is the caller's to remove, once nothing runs any
// more.
func TestDeletionEndsWithTheCallersPart(t *testing.T) {
	e := monitortest.New(t)
	var removed []string
	e.Config.Deleted = func(_ context.Context, id string) error {
		removed = append(removed, id)
		if len(removed) == 1 {
			return errors.New("systemd does not answer")
		}

		return nil
	}

	c, err := monitor.Connect(t.Context(), e.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	want := e.Container(t, "c", e.Runtime(t, "crun"), sh("sleep 1000"), nil)
	start(t, c, want)
	if err := c.Delete(t.Context(), want.ID); err == nil {
		t.Error("the deletion succeeded without its last part")
	}

	// The second is of one that is not there any more.
	for range 2 {
		if err := c.Delete(t.Context(), want.ID); err != nil {
			t.Error(err)
		}
	}

	if len(removed) != 3 {
		t.Errorf("removed %v, want each deletion to end with it", removed)
	}
}
