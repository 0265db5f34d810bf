package program

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// SmallHeap trades a little CPU for memory: daemons of a node idle most of the time, so a lower GC target
// costs nothing that shows and keeps the resident size near the live heap. GOGC in the environment wins.
func SmallHeap() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

const (
	// restPeriod is how often RestHeap looks whether there is work.
	restPeriod = 10 * time.Second

	// resting is how much is allocated in a period by a daemon that has no work, at most.
	resting = 1 << 20

	// worthGiving is how much has to be allocated before memory is given back once more: half of what the
	// collector, which looks by itself every two minutes, would leave there.
	worthGiving = 4 << 20
)

// RestHeap gives the kernel back what a time of much work has left in the heap, once that is over, until ctx
// ends. Without it that stays resident for minutes, and a part of it for good.
func RestHeap(ctx context.Context) {
	last, given := allocated(), uint64(0)
	for range retry.Every(ctx, restPeriod) {
		before := last
		last = allocated()
		if last-before > resting || last-given < worthGiving {
			continue
		}
		debug.FreeOSMemory()
		last = allocated()
		given = last
	}
}

// allocated is how many bytes were ever allocated.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
