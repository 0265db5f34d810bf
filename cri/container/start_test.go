package container_test

import (
	"testing"
	"time"

	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
)

func TestContainersOutliveTheServer(t *testing.T) {
	f := open(t)
	lasting, waiting := f.run("lasting"), f.create("waiting")
	f.restart()
	f.check(lasting, life.Running, "", 0)
	f.check(waiting, life.Created, "", 0)
	if err := f.Stop(t.Context(), lasting, 0); err != nil {
		t.Fatal(err)
	}
	f.check(lasting, life.Exited, "Error", 137)
}

func TestEndsThatNoServerHasSeenAreRecorded(t *testing.T) {
	f := open(t)
	ended := f.run("ended")
	lost := f.run("lost")
	waiting := f.create("waiting")
	at := time.Unix(1_700_000_000, 0)
	f.node.End(monitor.Exit{ID: ended, Code: 7, At: at})
	f.node.End(monitor.Exit{
		ID:   waiting,
		Code: 137,
		OOM:  true,
		At:   at,
	})

	f.node.LoseProcess(lost)
	f.restart()

	f.check(ended, life.Exited, "Error", 7)
	f.check(waiting, life.Exited, "OOMKilled", 137)
	f.check(lost, life.Exited, "Unknown", monitor.UnknownCode)
	if r := f.get(ended); !r.Finished.Equal(at) {
		t.Errorf("finished at %v, want %v", r.Finished, at)
	}
	if err := f.Start(t.Context(), waiting); err == nil {
		t.Error("a container whose init was killed for its memory was started")
	}

	f.check(waiting, life.Exited, "OOMKilled", 137)
}

func TestStartThatWasCutOffBeforeItsRecordIsSeen(t *testing.T) {
	f := open(t)
	started, waiting := f.create("started"), f.create("waiting")
	if err := f.node.Start(t.Context(), started); err != nil {
		t.Fatal(err)
	}
	f.restart()
	f.check(started, life.Running, "", 0)
	f.check(waiting, life.Created, "", 0)
	if r := f.get(started); r.Started.Before(r.Created) {
		t.Errorf("started at %v, created at %v", r.Started, r.Created)
	}
}

func TestHalfMadeContainerIsUndoneAtTheNextStart(t *testing.T) {
	f := open(t)
	id := f.create("app")
	f.rewrite(id, `"Made":true`, `"Made":false`)
	f.restart()
	if len(f.left()) > 0 {
		t.Errorf("left: %v", f.left())
	}

	// One that cannot be undone is seen, so that its pod's removal tries again.
	id = f.create("app")
	f.rewrite(id, `"Made":true`, `"Made":false`)
	f.node.FailOn("Release", errBroken)
	f.restart()
	f.check(id, life.Exited, "ContainerCannotRun", 128)
}

func TestContainersOfNoSandboxAreRemoved(t *testing.T) {
	f := open(t)
	f.run("app")
	if err := f.sandboxes.Remove(t.Context(), f.pod); err != nil {
		t.Fatal(err)
	}
	f.restart()
	if len(f.left()) > 0 {
		t.Errorf("left: %v", f.left())
	}
}

func TestRootFileSystemsThatNoRecordNamesAreReleased(t *testing.T) {
	f := open(t)
	id := f.create("app")
	for _, extra := range []string{"gone", "gone-volume0", id + "-volume3"} {
		f.node.AddBundle(extra)
	}
	f.ReleaseOrphans(t.Context())
	want := []string{"bundle " + id, "bundle " + id + "-volume3", "process " + id}
	left := f.node.Left()
	if len(left) != 3 || left[0] != want[0] || left[1] != want[1] || left[2] != want[2] {
		t.Errorf("left: %v, want %v", left, want)
	}
}
