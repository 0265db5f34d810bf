package sandbox_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/sandbox/sandboxtest"
)

// fixture is sandboxes on a machine without a kernel.
type fixture struct {
	*sandbox.Service
	tb      testing.TB
	dir     string
	machine *sandboxtest.Machine
	events  <-chan event.Event
}

func open(t *testing.T) *fixture {
	f := &fixture{tb: t, dir: t.TempDir(), machine: sandboxtest.NewMachine()}
	f.restart()
	return f
}

// restart opens the sandboxes as the next server does.
func (f *fixture) restart() {
	f.tb.Helper()
	hub := &event.Hub{}
	events, cancel := hub.Subscribe()
	f.tb.Cleanup(cancel)
	f.events = events
	f.Service = sandboxtest.Open(f.tb, f.dir, f.machine, hub)
}

func (f *fixture) run(config *runtimeapi.PodSandboxConfig) string {
	f.tb.Helper()
	id, err := f.Run(f.tb.Context(), config, "")
	if err != nil {
		f.tb.Fatal(err)
	}
	return id
}

func (f *fixture) state(id string) life.SandboxState {
	f.tb.Helper()
	r, err := f.Get(id)
	if err != nil {
		f.tb.Fatal(err)
	}
	return r.State
}

// published returns the types of the events until now.
func (f *fixture) published() []event.Type {
	var all []event.Type
	for len(f.events) > 0 {
		e := <-f.events
		all = append(all, e.Type)
	}
	return all
}

// files are those that sandboxes have left in both directories.
func (f *fixture) files() []string {
	var left []string
	for _, pattern := range []string{"sandboxes/*", "sandboxes/records/*", "files/*"} {
		found, _ := filepath.Glob(filepath.Join(f.dir, pattern))
		left = append(left, found...)
	}
	return slices.DeleteFunc(left, func(path string) bool { return filepath.Base(path) == "records" })
}

func TestSandboxIsMadeStoppedAndRemoved(t *testing.T) {
	f := open(t)
	id := f.run(sandboxtest.Pod("web", true))
	steps := strings.Join(f.machine.Steps(), " ")
	if want := "MountShm CreateNamespaces Create PinPID Start Setup InNamespace"; steps != want {
		t.Errorf("made by %s, want %s", steps, want)
	}

	r, err := f.Get(id)
	if err != nil || r.State != life.Ready || len(r.IPs) != 1 || r.InitPid == 0 {
		t.Errorf("%+v, %v", r, err)
	}

	// Both can be repeated, as a kubelet does that heard no answer.
	for range 2 {
		if err := f.Stop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}

	if f.state(id) != life.Stopped || len(f.machine.Left()) > 0 {
		t.Errorf("after the stop it is %s; left: %v", f.state(id), f.machine.Left())
	}

	for range 2 {
		if err := f.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}

	if _, err := f.Get(id); !errors.Is(err, record.ErrNotFound) || len(f.files()) > 0 {
		t.Errorf("after the removal: %v; left: %v", err, f.files())
	}

	want := []event.Type{event.Started, event.Stopped, event.Deleted}
	if got := f.published(); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestResourcesOfAPodAreThoseThatItWasGivenLast(t *testing.T) {
	f := open(t)
	id := f.run(sandboxtest.Pod("web", true))
	f.published()
	overhead := &runtimeapi.LinuxContainerResources{CpuShares: 10}
	resources := &runtimeapi.LinuxContainerResources{CpuQuota: 50_000}
	for _, call := range []struct {
		overhead, resources *runtimeapi.LinuxContainerResources
	}{
		{overhead, nil},
		{nil, resources},
		{overhead, resources},
	} {
		if err := f.Update(id, call.overhead, call.resources); err != nil {
			t.Fatal(err)
		}
	}

	f.restart()
	r, err := f.Get(id)
	linux := r.PodConfig().GetLinux()
	if err != nil || linux.Overhead.GetCpuShares() != 10 || linux.Resources.GetCpuQuota() != 50_000 {
		t.Errorf("%v, %v", linux, err)
	}
	if linux.GetSecurityContext() == nil {
		t.Error("the rest of the configuration is lost")
	}

	if got := f.published(); len(got) > 0 {
		t.Errorf("events %v: nothing has changed that they are of", got)
	}
	if err := f.Update("absent", nil, resources); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("a pod that does not exist: %v", err)
	}
}

func TestStepsBeforeOneThatFailsAreUndone(t *testing.T) {
	for _, step := range []string{
		"MountShm", "CreateNamespaces", "Create", "PinPID", "Start", "Setup", "InNamespace",
	} {
		t.Run(step, func(t *testing.T) {
			f := open(t)
			f.machine.FailOn(step, sandboxtest.ErrBroken)
			_, err := f.Run(t.Context(), sandboxtest.Pod("web", true), "")
			if !errors.Is(err, sandboxtest.ErrBroken) {
				t.Fatalf("error %v", err)
			}
			if left := append(f.machine.Left(), f.files()...); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if len(f.List()) > 0 || len(f.published()) > 0 {
				t.Errorf("clients see a sandbox that was never ready: %v", f.List())
			}
		})
	}
}

func TestSandboxOfACallerThatIsGoneIsUndone(t *testing.T) {
	f := open(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(sandboxtest.ErrBroken)
	if _, err := f.Run(ctx, sandboxtest.Pod("web", false), ""); !errors.Is(err, sandboxtest.ErrBroken) {
		t.Errorf("error %v", err)
	}
	if left := append(f.machine.Left(), f.files()...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestSandboxThatCannotBeUndoneIsListedAsStopped(t *testing.T) {
	f := open(t)
	f.machine.FailOn("Setup", sandboxtest.ErrBroken)
	f.machine.FailOn("Teardown", sandboxtest.ErrBroken)
	if _, err := f.Run(t.Context(), sandboxtest.Pod("web", false), ""); err == nil {
		t.Fatal("no error")
	}

	list := f.List()
	if len(list) != 1 || list[0].State != life.Stopped {
		t.Fatalf("listed: %+v", list)
	}

	f.machine.FailOn("Teardown", nil)
	if err := f.Remove(t.Context(), list[0].ID); err != nil {
		t.Error(err)
	}
	if left := append(f.machine.Left(), f.files()...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRepeatedRunReturnsTheReadySandbox(t *testing.T) {
	f := open(t)
	first := f.run(sandboxtest.Pod("web", false))
	if again := f.run(sandboxtest.Pod("web", false)); again != first {
		t.Errorf("a repeated call made %s beside %s", again, first)
	}

	next := sandboxtest.Pod("web", false)
	next.Metadata.Attempt++
	if other := f.run(next); other == first {
		t.Error("the next attempt got the sandbox of the first one")
	}

	if err := f.Stop(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if again := f.run(sandboxtest.Pod("web", false)); again == first {
		t.Error("the pod got its stopped sandbox again")
	}
}

func TestBrokenNetworkHoldsNothingButItself(t *testing.T) {
	f := open(t)
	id := f.run(sandboxtest.Pod("web", true))
	f.machine.FailOn("Teardown", sandboxtest.ErrBroken)
	if err := f.Stop(t.Context(), id); !errors.Is(err, sandboxtest.ErrBroken) {
		t.Errorf("error %v", err)
	}
	if left := f.machine.Left(); len(left) != 1 || left[0] != "network "+id {
		t.Errorf("left: %v, want the network", left)
	}
	if f.state(id) != life.Stopped {
		t.Errorf("state %s", f.state(id))
	}

	f.machine.FailOn("Teardown", nil)
	if err := f.Stop(t.Context(), id); err != nil || len(f.machine.Left()) > 0 {
		t.Errorf("stopped again: %v, left %v", err, f.machine.Left())
	}
}

func TestSandboxWhoseInitEndsIsNotReady(t *testing.T) {
	f := open(t)
	id := f.run(sandboxtest.Pod("web", true))
	f.published()
	for _, want := range []bool{true, false} {
		if wasReady, err := f.InitEnded(id); err != nil || wasReady != want {
			t.Errorf("was ready: %t, %v", wasReady, err)
		}
	}

	if f.state(id) != life.Stopped {
		t.Errorf("state %s", f.state(id))
	}
	if got := f.published(); !slices.Equal(got, []event.Type{event.Stopped}) {
		t.Errorf("events %v", got)
	}
	if _, err := f.InitEnded("of no sandbox"); err != nil {
		t.Errorf("exit of an unknown init: %v", err)
	}
}

func TestInitThatEndsWhileNoServerRunsIsNoticed(t *testing.T) {
	f := open(t)
	id := f.run(sandboxtest.Pod("web", true))
	lives := f.run(sandboxtest.Pod("other", true))
	f.machine.Kill("pause-" + id)
	f.restart()
	if f.state(id) != life.Stopped || f.state(lives) != life.Ready {
		t.Errorf("states %s and %s", f.state(id), f.state(lives))
	}
}

func TestHalfMadeSandboxIsUndoneAtTheNextStart(t *testing.T) {
	f := open(t)
	id := f.run(sandboxtest.Pod("web", true))
	f.makeAgain(id)
	f.restart()
	if left := append(f.machine.Left(), f.files()...); len(left) > 0 || len(f.List()) > 0 {
		t.Errorf("left: %v", left)
	}

	id = f.run(sandboxtest.Pod("web", true))
	f.makeAgain(id)
	f.machine.FailOn("Teardown", sandboxtest.ErrBroken)
	f.restart()
	if f.state(id) != life.Stopped {
		t.Errorf("one that cannot be undone is %s, so that nobody removes it", f.state(id))
	}
}

// makeAgain changes a record to what it was before the sandbox was ready.
func (f *fixture) makeAgain(id string) {
	f.tb.Helper()
	path := filepath.Join(f.dir, "sandboxes/records", id+".json")
	data, err := os.ReadFile(path)
	if err != nil {
		f.tb.Fatal(err)
	}
	made := strings.Replace(string(data), `"State":"ready"`, `"State":"making"`, 1)
	if err := os.WriteFile(path, []byte(made), 0o600); err != nil {
		f.tb.Fatal(err)
	}
}

func TestFilesOfSandboxesBeforeARebootAreRemoved(t *testing.T) {
	f := open(t)
	id := f.run(sandboxtest.Pod("web", false))
	if err := os.MkdirAll(filepath.Join(f.dir, "files/before-the-reboot"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.restart()
	left, err := os.ReadDir(filepath.Join(f.dir, "files"))
	if err != nil || len(left) != 1 || left[0].Name() != id {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestConfigurationsThatCannotBeServedAreRefused(t *testing.T) {
	f := open(t)
	for name, change := range map[string]func(*runtimeapi.PodSandboxConfig){
		"no name":  func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name = "" },
		"no uid":   func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Uid = "" },
		"a slice":  func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = "kubepods-pod1.slice" },
		"a sysctl": func(c *runtimeapi.PodSandboxConfig) { c.Linux.Sysctls["vm.swappiness"] = "1" },
		"a user namespace": func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{}
		},
	} {
		config := sandboxtest.Pod("web", false)
		change(config)
		if _, err := f.Run(t.Context(), config, ""); !errors.Is(err, sandbox.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}

	if _, err := f.Run(t.Context(), sandboxtest.Pod("web", false), "absent"); err == nil {
		t.Error("a handler that is not configured is accepted")
	}
	if steps := f.machine.Steps(); len(steps) > 0 {
		t.Errorf("steps %v", steps)
	}
}
