package cgroup

import (
	"context"
	"testing"

	"github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/internal/testenv"
)

// BenchmarkUsage reads the counters of one group.
func BenchmarkUsage(b *testing.B) {
	testenv.Root(b)
	host, err := Open()
	if err != nil {
		b.Fatal(err)
	}

	const group = "/trivet-cgroup-benchmark"
	if err := host.Create(group); err != nil {
		b.Fatal(err)
	}

	b.Cleanup(func() {
		if err := host.Remove(context.Background(), group); err != nil {
			b.Error(err)
		}
	})

	for name, c := range map[string]struct {
		keep   bool
		detail usage.Detail
	}{
		"once":      {false, usage.Basic},
		"kept open": {true, usage.Basic},
		"full":      {true, usage.Full},
	} {
		b.Run(name, func(b *testing.B) {
			reader := host.Reader(group, c.keep)
			defer reader.Close()

			b.ReportAllocs()
			for b.Loop() {
				if _, err := reader.Read(c.detail); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
