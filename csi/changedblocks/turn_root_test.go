package changedblocks_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/trivet-node/trivet/csi/changedblocks"
	"github.com/trivet-node/trivet/csi/volume"
)

// busy are snapshots of which somebody holds one, except while it is inspected: at every second call.
type busy struct {
	*volume.Store
	id     string
	waited chan struct{} // has a value for each call that waits

	mu    sync.Mutex
	calls int // guarded by mu
}

func (b *busy) Lock(ctx context.Context, id string) (unlock func(), err error) {
	if id != b.id {
		return b.Store.Lock(ctx, id)
	}
	b.mu.Lock()
	b.calls++
	waits := b.calls%2 == 0
	b.mu.Unlock()
	if !waits {
		return b.Store.Lock(ctx, id)
	}
	b.waited <- struct{}{}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// Those who wait for a snapshot that somebody holds, as many as are served at a time, keep nobody from
// looking at another one.
func TestWhoWaitsForASnapshotStopsNobody(t *testing.T) {
	n := newNode(t)
	v, path := n.raw(64 << 20)
	n.scribble(path, v.Size, 4)
	held, free := n.snapshot(v), n.snapshot(v)
	b := &busy{Store: n.Store, id: held.ID, waited: make(chan struct{}, 1)}
	tracker := changedblocks.New(b, n.Pool)
	nothing := func(int64, ranges) error { return nil }

	waiting, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			if err := tracker.Allocated(waiting, held.ID, 0, nothing); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		<-b.waited
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := tracker.Allocated(ctx, free.ID, 0, nothing); err != nil {
		t.Error(err)
	}
	stop()
	group.Wait()
	n.Remove(v.ID, "pod")
}
