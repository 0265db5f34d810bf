package container_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/sandbox"
)

var errBroken = errors.New("broken")

func TestContainerIsCreatedStartedStoppedAndRemoved(t *testing.T) {
	f := open(t)
	id := f.create("app")
	if steps := strings.Join(f.node.Steps(), " "); steps != "Get Make Create" {
		t.Errorf("created by %s", steps)
	}

	f.check(id, life.Created, "", 0)
	for range 2 {
		if err := f.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}

	f.check(id, life.Running, "", 0)
	if steps := strings.Join(f.node.Steps(), " "); steps != "Start" {
		t.Errorf("started twice by %s", steps)
	}

	for range 2 {
		if err := f.Stop(t.Context(), id, 0); err != nil {
			t.Fatal(err)
		}
	}

	f.check(id, life.Exited, "Error", 137)
	for range 2 {
		if err := f.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}

	if _, err := f.Get(id); !errors.Is(err, record.ErrNotFound) || len(f.left()) > 0 {
		t.Errorf("after the removal: %v; left: %v", err, f.left())
	}
	if got := f.published(); got != "created started stopped deleted" {
		t.Errorf("events %s", got)
	}
}

func TestStepsBeforeOneThatFailsAreUndone(t *testing.T) {
	for _, step := range []string{"Get", "Make", "Create"} {
		t.Run(step, func(t *testing.T) {
			f := open(t)
			f.node.FailOn(step, errBroken)
			if _, err := f.Create(t.Context(), f.pod, config("app")); !errors.Is(err, errBroken) {
				t.Fatalf("error %v", err)
			}
			if len(f.left()) > 0 || len(f.List()) > 0 || f.published() != "" {
				t.Errorf("left: %v, listed: %v", f.left(), f.List())
			}
		})
	}
}

func TestContainerOfACallerThatIsGoneIsUndone(t *testing.T) {
	f := open(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBroken)
	if _, err := f.Create(ctx, f.pod, config("app")); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	if len(f.left()) > 0 {
		t.Errorf("left: %v", f.left())
	}
}

func TestContainerThatCannotBeUndoneIsListedAsExited(t *testing.T) {
	f := open(t)
	f.node.FailOn("Create", errBroken)
	f.node.FailOn("Release", errBroken)
	if _, err := f.Create(t.Context(), f.pod, config("app")); err == nil {
		t.Fatal("no error")
	}

	list := f.List()
	if len(list) != 1 {
		t.Fatalf("listed: %v", list)
	}

	f.check(list[0].ID, life.Exited, "ContainerCannotRun", 128)

	f.node.FailOn("Release", nil)
	if err := f.Remove(t.Context(), list[0].ID); err != nil || len(f.left()) > 0 {
		t.Errorf("removed later: %v; left: %v", err, f.left())
	}
}

func TestRepeatedCreateReturnsTheContainerUntilItWasStarted(t *testing.T) {
	f := open(t)
	id := f.create("app")
	if again := f.create("app"); again != id {
		t.Errorf("a repeated call made %s beside %s", again, id)
	}
	if other := f.create("other"); other == id {
		t.Error("a container of another name is the same")
	}
	if err := f.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Create(t.Context(), f.pod, config("app")); err == nil {
		t.Error("an attempt that runs was made a second time")
	}
}

func TestContainersThatCannotBeCreatedAreRefused(t *testing.T) {
	f := open(t)
	for _, c := range []struct {
		name   string
		change func(*runtimeapi.ContainerConfig)
		want   error
	}{
		{"no name", func(c *runtimeapi.ContainerConfig) { c.Metadata.Name = "" }, container.ErrInvalid},
		{"no image", func(c *runtimeapi.ContainerConfig) { c.Image.Image = "absent:1" }, image.ErrNotFound},
		{
			name: "the PID namespace of a container that does not exist",
			change: func(c *runtimeapi.ContainerConfig) {
				c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{
					Pid:      runtimeapi.NamespaceMode_TARGET,
					TargetId: "absent",
				}
			},
			want: record.ErrNotFound,
		},
	} {
		refused := config("app")
		c.change(refused)
		if _, err := f.Create(t.Context(), f.pod, refused); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}

	if _, err := f.Create(t.Context(), "absent", config("app")); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("no sandbox: %v", err)
	}
	if err := f.sandboxes.Stop(t.Context(), f.pod); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Create(t.Context(), f.pod, config("app")); !errors.Is(err, sandbox.ErrNotReady) {
		t.Errorf("a stopped sandbox: %v", err)
	}
	if len(f.left()) > 0 {
		t.Errorf("left: %v", f.left())
	}
}

// A job whose command does not exist has to fail, once, as with other runtimes: so the start fails, not the
// creation, and the container has ended.
func TestWhatTheRuntimeRefusesFailsAtTheStart(t *testing.T) {
	f := open(t)
	for step, name := range map[string]string{"Create": "at create", "Start": "at start"} {
		f.node.FailOn(step, fmt.Errorf("no such command: %w", monitor.ErrRefused))
		id := f.create(name)
		f.check(id, life.Created, "", 0)
		if step == "Create" {
			// What was refused outlives the server.
			f.restart()
		}

		for range 2 {
			if err := f.Start(t.Context(), id); err == nil {
				t.Errorf("%s: it was started", name)
			}
		}

		f.check(id, life.Exited, "StartError", 128)
		if r := f.get(id); !strings.Contains(r.Message, "no such command") || r.Finished.IsZero() {
			t.Errorf("%s: message %q, finished %v", name, r.Message, r.Finished)
		}
		if err := errors.Join(f.Stop(t.Context(), id, time.Hour), f.Remove(t.Context(), id)); err != nil {
			t.Errorf("%s: %v", name, err)
		}

		f.node.FailOn(step, nil)
	}
}

func TestContainerIsAskedToEndBeforeItIsKilled(t *testing.T) {
	f := open(t)
	polite := f.run("polite")
	if err := f.Stop(t.Context(), polite, time.Hour); err != nil {
		t.Fatal(err)
	}

	f.check(polite, life.Exited, "Error", 128+int(unix.SIGTERM))

	// One that was never started has nothing to be asked.
	waiting := f.create("waiting")
	if err := f.Stop(t.Context(), waiting, time.Hour); err != nil {
		t.Fatal(err)
	}

	f.check(waiting, life.Exited, "Error", 137)

	f.node.Ignore(unix.SIGTERM)
	stubborn := f.run("stubborn")
	if err := f.Stop(t.Context(), stubborn, time.Millisecond); err != nil {
		t.Fatal(err)
	}

	f.check(stubborn, life.Exited, "Error", 137)
}

func TestContainerIsAskedToEndOnceItsProgramNotices(t *testing.T) {
	f := open(t)
	f.node.Deaf = 3
	starting := f.run("starting")
	if err := f.Stop(t.Context(), starting, time.Hour); err != nil {
		t.Fatal(err)
	}

	f.check(starting, life.Exited, "Error", 128+int(unix.SIGTERM))

	f.node.Deaf = 1 << 30
	deaf := f.run("deaf")
	if err := f.Stop(t.Context(), deaf, time.Millisecond); err != nil {
		t.Fatal(err)
	}

	f.check(deaf, life.Exited, "Error", 137)
}

func TestStopEndsWithItsCaller(t *testing.T) {
	f := open(t)
	f.node.Ignore(unix.SIGTERM)
	id := f.run("stubborn")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBroken)
	if err := f.Stop(ctx, id, time.Hour); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	f.check(id, life.Running, "", 0)
}

func TestContainerThatNeverStartedIsRemovedWithoutAnEnd(t *testing.T) {
	f := open(t)
	id := f.create("app")
	if err := f.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got := f.published(); got != "created deleted" {
		t.Errorf("events %s", got)
	}

	// A removal that is cut off after the process was killed.
	id = f.create("app")
	f.node.FailOn("Release", errBroken)
	if err := f.Remove(t.Context(), id); err == nil {
		t.Fatal("no error")
	}

	f.check(id, life.Created, "", 0)
	if err := f.Start(t.Context(), id); !errors.Is(err, life.ErrDiscarded) {
		t.Errorf("started meanwhile: %v", err)
	}

	f.node.FailOn("Release", nil)
	f.restart()
	if len(f.List()) > 0 || len(f.left()) > 0 {
		t.Errorf("the next server does not finish the removal: %v", f.left())
	}
}

// An init can be killed for its memory as soon as it exists.
func TestExitThatComesBeforeTheCreationIsRecordedIsNotLost(t *testing.T) {
	f := open(t)
	f.node.Creating = func(id string) {
		f.Ended(monitor.Exit{ID: id, Code: 137, OOM: true})
	}
	id := f.create("app")
	f.check(id, life.Exited, "OOMKilled", 137)
	if got := f.published(); got != "stopped" {
		t.Errorf("events %s", got)
	}
	if err := f.Start(t.Context(), id); !errors.Is(err, life.ErrExited) {
		t.Errorf("start: %v", err)
	}
}

// The call that stops the sandbox has not seen the container.
func TestContainerOfASandboxThatIsStoppedMeanwhileIsUndone(t *testing.T) {
	f := open(t)
	f.node.Creating = func(string) {
		if err := f.sandboxes.Stop(t.Context(), f.pod); err != nil {
			t.Error(err)
		}
	}
	if _, err := f.Create(t.Context(), f.pod, config("app")); !errors.Is(err, sandbox.ErrNotReady) {
		t.Errorf("error %v", err)
	}
	if len(f.left()) > 0 {
		t.Errorf("left: %v", f.left())
	}
	if err := f.AwaitCreations(t.Context(), f.pod); err != nil {
		t.Error(err)
	}
}

// Kubelet shows these in a pod's status, as image and imageID.
func TestImageIsNamedAsItWasAskedFor(t *testing.T) {
	f := open(t)
	for name, spec := range map[string]*runtimeapi.ImageSpec{
		"by name":    {Image: "registry.example/app:1"},
		"by ID":      {Image: "sha256:1234"},
		"by kubelet": {Image: "sha256:1234", UserSpecifiedImage: "registry.example/app:1"},
	} {
		asked := config(name)
		asked.Image = spec
		id, err := f.Create(t.Context(), f.pod, asked)
		if err != nil {
			t.Fatal(err)
		}

		r := f.get(id)
		if r.Image().Image != "registry.example/app:1" || r.ImageID != "sha256:1234" {
			t.Errorf("%s: image %v, ID %s", name, r.Image(), r.ImageID)
		}
	}
}
