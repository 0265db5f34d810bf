package eviction

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/threshold"
)

// directories is a runtime that keeps all that it has below one directory.
type directories string

func (d directories) Directories(context.Context) (images, containers string, err error) {
	if d == "" {
		return "", "", errors.New("unknown")
	}
	return string(d), string(d), nil
}

const meminfo = `MemTotal:       1000 kB
AnonPages:        60 kB
Buffers:          10 kB
Cached:           80 kB
Inactive(file):   50 kB
`

// made is a machine with 1000 KiB of memory, 100 of them in use, and 400 of 1000 tasks.
func made(t *testing.T) machine.Machine {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"proc/meminfo":                meminfo,
		"proc/loadavg":                "0.00 0.01 0.05 2/400 6789\n",
		"proc/sys/kernel/pid_max":     "1000\n",
		"proc/sys/kernel/threads-max": "5000\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return machine.Machine{Root: root}
}

// groups are control groups, by name.
type groups map[string]cgroup.Usage

func (g groups) Usage(name string) (cgroup.Usage, error) {
	usage, there := g[name]
	if !there {
		return cgroup.Usage{}, fs.ErrNotExist
	}
	return usage, nil
}

// node is one without control groups.
func node(t *testing.T, dirs directories) *Node {
	t.Helper()
	return &Node{
		Machine: made(t),
		Cgroups: groups{},
		RootDir: t.TempDir(),
		Runtime: dirs,
		Log:     slog.New(slog.DiscardHandler),
	}
}

func TestANodeIsMeasuredAsKubeletMeasuresIt(t *testing.T) {
	got, _ := node(t, directories(t.TempDir())).Observe(t.Context())
	for signal, want := range map[string]string{
		// Page cache that was not used for a while is left.
		threshold.Memory: "921600 of 1024000",
		threshold.PIDs:   "600 of 1000",
	} {
		if o := got[signal]; fmt.Sprintf("%d of %d", o.Left, o.Capacity) != want {
			t.Errorf("%s: %+v, want %s", signal, o, want)
		}
	}

	for _, signal := range []string{threshold.NodeFS, threshold.ImageFS, threshold.ContainerFS} {
		if o := got[signal]; o.Left <= 0 || o.Capacity < o.Left || o.Time.IsZero() {
			t.Errorf("%s: %+v", signal, o)
		}
	}
	if _, measured := got[threshold.AllocatableMemory]; measured {
		t.Error("pods without a group were measured")
	}
}

func TestControlGroupsSayMoreThanTheMachine(t *testing.T) {
	n := node(t, directories(t.TempDir()))
	n.PodsGroup = "/kubepods"
	n.Cgroups = groups{
		"/":         {Memory: 900 << 10, WorkingSet: 700 << 10},
		"/kubepods": {Memory: 500, WorkingSet: 400, MemoryLimit: 1000},
	}

	got, _ := n.Observe(t.Context())
	for signal, want := range map[string]Observed{
		threshold.Memory:            {Left: 300 << 10, Capacity: 1000 << 10, Group: "/", Cached: 200 << 10},
		threshold.AllocatableMemory: {Left: 600, Capacity: 1000, Group: "/kubepods", Cached: 100},
	} {
		o := got[signal]
		o.Time = time.Time{}
		if o != want {
			t.Errorf("%s: %+v, want %+v", signal, o, want)
		}
	}

	// Without a limit there is nothing to be short of.
	n.Cgroups = groups{"/kubepods": {Memory: 500, WorkingSet: 400}}
	got, _ = n.Observe(t.Context())
	if o, measured := got[threshold.AllocatableMemory]; measured {
		t.Errorf("without a limit: %+v", o)
	}
}

func TestImagesAreMeasuredWhenTheRuntimeHasSaidWhereTheyAre(t *testing.T) {
	n := node(t, "")
	got, _ := n.Observe(t.Context())
	if _, measured := got[threshold.ImageFS]; measured {
		t.Error("measured before the runtime has answered")
	}
	if _, measured := got[threshold.NodeFS]; !measured {
		t.Error("the node was not measured")
	}

	n.Runtime = directories(t.TempDir())
	got, layout := n.Observe(t.Context())
	if _, measured := got[threshold.ImageFS]; !measured || layout.Split {
		t.Errorf("%+v, %+v", got, layout)
	}
}

func TestEveryFormOfAThresholdBringsPressure(t *testing.T) {
	// more than any machine has
	all := "1000000000Gi"
	for _, c := range []struct {
		signal, value string
		want          v1.NodeConditionType
	}{
		{"memory.available", all, v1.NodeMemoryPressure},
		{"memory.available", "99.99%", v1.NodeMemoryPressure},
		{"nodefs.available", all, v1.NodeDiskPressure},
		{"nodefs.available", "99.99%", v1.NodeDiskPressure},
		{"nodefs.inodesFree", all, v1.NodeDiskPressure},
		{"imagefs.available", all, v1.NodeDiskPressure},
		{"imagefs.available", "99.99%", v1.NodeDiskPressure},
		{"pid.available", all, v1.NodePIDPressure},
		{"memory.available", "1", ""},
		{"memory.available", "0%", ""},
		{"pid.available", "0.01%", ""},
	} {
		seen, layout := node(t, directories(t.TempDir())).Observe(t.Context())
		h := newHistory(time.Minute)
		got := h.judge(layout.thresholds(thresholds(t, c.signal+"<"+c.value)), seen, start).Pressure
		if c.want == "" && len(got) > 0 ||
			c.want != "" && !slices.Equal(got, []v1.NodeConditionType{c.want}) {
			t.Errorf("%s: %s: %v, want %q", c.signal, c.value, got, c.want)
		}
	}
}

func TestDirectoriesOfOneFileSystemAreNotApart(t *testing.T) {
	root, images := t.TempDir(), t.TempDir()
	if got := layoutOf(root, images, images); got != (Layout{}) {
		t.Errorf("two directories beside each other: %+v", got)
	}
	if got := layoutOf(root, "/proc", "/proc"); got != (Layout{Images: true}) {
		t.Errorf("images apart: %+v", got)
	}
	if got := layoutOf(root, "/proc", root); got != (Layout{Images: true, Split: true}) {
		t.Errorf("layers beside kubelet's directory: %+v", got)
	}
	if got := layoutOf(root, "/no/such", "/no/such"); got != (Layout{}) {
		t.Errorf("unknown directories: %+v", got)
	}
}

// BenchmarkObserve is what a look at an idle node costs.
func BenchmarkObserve(b *testing.B) {
	host, err := cgroup.Open()
	if err != nil {
		b.Fatal(err)
	}

	n := &Node{
		Cgroups:   host,
		RootDir:   b.TempDir(),
		PodsGroup: "/",
		Runtime:   directories(b.TempDir()),
		Log:       slog.New(slog.DiscardHandler),
	}
	for b.Loop() {
		n.Observe(b.Context())
	}
}
