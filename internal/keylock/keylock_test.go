package keylock

import (
	"context"
	"sync"
	"testing"
)

func TestOneHolderPerKeyAndNoMemoryAfterwards(t *testing.T) {
	var l Locks[string]
	var wg sync.WaitGroup
	inside := map[string]int{"a": 0, "b": 0}
	var mu sync.Mutex
	for i := range 100 {
		key := []string{"a", "b"}[i%2]
		wg.Go(func() {
			unlock, err := l.Lock(t.Context(), key)
			if err != nil {
				t.Error(err)
				return
			}

			defer unlock()

			mu.Lock()
			if inside[key]++; inside[key] != 1 {
				t.Errorf("%d holders of %s", inside[key], key)
			}

			mu.Unlock()
			mu.Lock()
			inside[key]--
			mu.Unlock()
		})
	}

	wg.Wait()
	if len(l.held) != 0 {
		t.Errorf("%d keys are still in memory", len(l.held))
	}
}

func TestLockGivesUpWithTheContext(t *testing.T) {
	var l Locks[string]
	unlock, err := l.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Lock(ctx, "a"); err == nil {
		t.Fatal("a second holder got the lock")
	}

	unlock()
	if _, ok := l.TryLock("a"); !ok {
		t.Fatal("the lock was not free after unlock")
	}
}
