package container_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/container/containertest"
	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/sandbox/sandboxtest"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// fixture is the containers of one pod on a node without a kernel.
type fixture struct {
	*container.Service
	tb        testing.TB
	dir       string
	machine   *sandboxtest.Machine
	node      *containertest.Node
	sandboxes *sandbox.Service
	pod       string
	events    <-chan event.Event
	groups    groups

	// runtime is the path of the OCI runtime after restart.
	runtime string
}

// groups are control groups without a kernel, of v2 if used is not 0.
type groups struct {
	// used is how many bytes of memory each of them uses.
	used int64

	// applied are the limits that were written last.
	applied cgroup.Limits

	// refuse is the error of the next limits.
	refuse error
}

// MemoryUsage returns used.
func (g *groups) MemoryUsage(string) (int64, error) { return g.used, nil }

// Exists finds none.
func (g *groups) Exists(string) bool { return false }

// Apply keeps the limits.
func (g *groups) Apply(_ string, limits cgroup.Limits) error {
	err := g.refuse
	g.applied, g.refuse = limits, nil
	return err
}

func open(t *testing.T) *fixture {
	f := &fixture{
		tb:      t,
		dir:     t.TempDir(),
		machine: sandboxtest.NewMachine(),
		node:    containertest.NewNode(),
	}

	f.restart()
	pod, err := f.sandboxes.Run(t.Context(), sandboxtest.Pod("web", false), "")
	if err != nil {
		t.Fatal(err)
	}

	f.pod = pod
	f.published()
	return f
}

// restart opens all as the next server does.
func (f *fixture) restart() {
	f.tb.Helper()
	hub := &event.Hub{}
	events, cancel := hub.Subscribe()
	f.tb.Cleanup(cancel)
	f.events = events
	f.sandboxes = sandboxtest.Open(f.tb, f.dir, f.machine, hub)

	service, err := container.Open(f.tb.Context(), container.Config{
		Dir:       filepath.Join(f.dir, "containers"),
		Sandboxes: f.sandboxes,
		Images:    f.node,
		Bundles:   f.node,
		Processes: f.node,
		Inventory: f.node,
		Handlers:  ociruntime.Handlers{"": {Runtime: ociruntime.Runtime{Program: f.runtime}}},
		Host:      spec.Host{CgroupV2: f.groups.used != 0},
		Groups:    &f.groups,
		Events:    hub,
		Log:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.tb.Fatal(err)
	}

	f.Service = service
	f.node.Exited = service.Ended
}

// config is that of a container of the pod.
func config(name string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: "registry.example/app:1"},
		LogPath:  name + ".log",
		Linux: &runtimeapi.LinuxContainerConfig{
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			},
		},
	}
}

func (f *fixture) create(name string) string {
	f.tb.Helper()
	id, err := f.Create(f.tb.Context(), f.pod, config(name))
	if err != nil {
		f.tb.Fatal(err)
	}
	return id
}

// run creates and starts a container.
func (f *fixture) run(name string) string {
	f.tb.Helper()
	id := f.create(name)
	if err := f.Start(f.tb.Context(), id); err != nil {
		f.tb.Fatal(err)
	}
	return id
}

func (f *fixture) get(id string) container.Record {
	f.tb.Helper()
	r, err := f.Get(id)
	if err != nil {
		f.tb.Fatal(err)
	}
	return r
}

// check compares a container's state and how it ended.
func (f *fixture) check(id string, state life.State, reason string, code int) {
	f.tb.Helper()
	r := f.get(id)
	if r.State != state || r.Reason != reason || r.Code != code {
		f.tb.Errorf("%s, reason %q, code %d; want %s, %q, %d", r.State, r.Reason, r.Code, state, reason, code)
	}
}

// published returns the types of the events until now, in words.
func (f *fixture) published() string {
	names := map[event.Type]string{
		event.Created: "created",
		event.Started: "started",
		event.Stopped: "stopped",
		event.Deleted: "deleted",
	}

	var all []string
	for len(f.events) > 0 {
		e := <-f.events
		all = append(all, names[e.Type])
	}

	return strings.Join(all, " ")
}

// left is what containers have left on the node and below the directory.
func (f *fixture) left() []string {
	left := f.node.Left()
	for _, pattern := range []string{"containers/*", "containers/records/*"} {
		found, _ := filepath.Glob(filepath.Join(f.dir, pattern))
		left = append(left, found...)
	}
	return slices.DeleteFunc(left, func(path string) bool { return filepath.Base(path) == "records" })
}

// rewrite changes the text of a container's record, as an earlier server has left it.
func (f *fixture) rewrite(id string, before, after string) {
	f.tb.Helper()
	path := filepath.Join(f.dir, "containers/records", id+".json")
	data, err := os.ReadFile(path)
	if err != nil {
		f.tb.Fatal(err)
	}
	if !strings.Contains(string(data), before) {
		f.tb.Fatalf("record %s has no %s", data, before)
	}

	changed := strings.Replace(string(data), before, after, 1)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		f.tb.Fatal(err)
	}
}
