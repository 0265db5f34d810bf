package plan_test

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/status"
)

// full is a node with 110 pods that run and have nothing to do, which is what most looks find.
func full(b *testing.B) []*world {
	b.Helper()
	var out []*world
	for i := range 110 {
		pod := podOf("Always", "init:i", "sidecar:s", "a", "b")
		pod.UID = types.UID(fmt.Sprint(i))
		w := newWorld(pod)
		for range 20 {
			d := w.look(nil)
			for _, s := range d.Steps {
				w.end(s, nil)
			}

			if c := w.running("i"); c != nil {
				w.exit(c.ID, 0)
			}
		}

		if d := w.look(nil); len(d.Steps) > 0 || w.running("b") == nil {
			b.Fatalf("pod %d does not run: %v", i, d.Steps)
		}

		out = append(out, w)
	}

	return out
}

// BenchmarkDecide is one decision about each of 110 pods.
func BenchmarkDecide(b *testing.B) {
	pods := full(b)
	b.ReportAllocs()
	for b.Loop() {
		for _, w := range pods {
			w.pod.Look()
			w.pod.Want(w.api)
			w.pod.See(w.node)
			w.pod.Decide(w.health, w.now)
		}
	}
}

// BenchmarkDecideAndStatus is all that is computed in one look at each of 110 pods.
func BenchmarkDecideAndStatus(b *testing.B) {
	pods := full(b)
	node := status.Node{IPs: []string{"192.0.2.1"}, Runtime: "rt"}
	b.ReportAllocs()
	for b.Loop() {
		for _, w := range pods {
			w.pod.Look()
			w.pod.Want(w.api)
			w.pod.See(w.node)
			d := w.pod.Decide(w.health, w.now)
			status.Compute(&d.View, node)
		}
	}
}
