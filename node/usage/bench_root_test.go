package usage

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/runtime"
)

// fullNode is a runtime and a tree of groups with 110 pods of one container each.
type fullNode struct {
	root       string
	sandboxes  []runtime.Sandbox
	containers []runtime.Container
}

func (f *fullNode) Sandboxes(context.Context, runtime.Selection) ([]runtime.Sandbox, error) {
	return f.sandboxes, nil
}

func (f *fullNode) Containers(context.Context, runtime.Selection) ([]runtime.Container, error) {
	return f.containers, nil
}

func (f *fullNode) Tiers() []string { return []string{f.root} }

func (f *fullNode) Groups() (map[types.UID]string, error) {
	out := map[types.UID]string{}
	for _, s := range f.sandboxes {
		out[types.UID(s.Pod.UID)] = f.root + "/pod" + s.Pod.UID
	}
	return out, nil
}

// BenchmarkPass reads the groups of 110 pods and their containers, in which nothing runs.
func BenchmarkPass(b *testing.B) {
	testenv.Root(b)
	host, err := cgroup.Open()
	if err != nil {
		b.Fatal(err)
	}

	f := &fullNode{root: "/trivet-usage-benchmark"}
	b.Cleanup(func() {
		if err := host.Remove(context.WithoutCancel(b.Context()), f.root); err != nil {
			b.Error(err)
		}
	})

	for i := range 110 {
		id := fmt.Sprint(i)
		pod := runtime.Pod{UID: id, Namespace: "n", Name: id}
		f.sandboxes = append(f.sandboxes, runtime.Sandbox{ID: "box" + id, Pod: pod})
		f.containers = append(
			f.containers,
			runtime.Container{ID: "app" + id, SandboxID: "box" + id, Pod: pod},
		)
		if err := host.Create(f.root + "/pod" + id + "/app" + id); err != nil {
			b.Fatal(err)
		}
	}

	m := New(Config{
		Groups:  host,
		V2:      host.V2,
		Tree:    f,
		Runtime: f,
		Daemons: func() map[string]string { return nil },
	})

	for name, depth := range map[string]Depth{"CPUAndMemory": CPUAndMemory, "Everything": Everything} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := processorTime(b)
			for b.Loop() {
				if s := m.read(b.Context(), depth); len(s.Pods) != 110 ||
					s.Pods[0].Containers[0].Group == nil {
					b.Fatal("groups are missing")
				}
			}

			used := processorTime(b) - before
			b.ReportMetric(float64(used.Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
}

// processorTime is what the process has used so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
