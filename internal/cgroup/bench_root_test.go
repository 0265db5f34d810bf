package cgroup

import (
	"context"
	"testing"

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

	b.ReportAllocs()
	for b.Loop() {
		if _, err := host.Usage(group); err != nil {
			b.Fatal(err)
		}
	}
}
