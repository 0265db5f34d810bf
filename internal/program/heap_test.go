package program

import (
	"context"
	"runtime/metrics"
	"testing"
	"testing/synctest"
	"time"
)

// forced is how many collections somebody has asked for.
func forced() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

var sink []byte

// Memory is given back once when work is over, and not while there is some.
func TestMemoryIsGivenBackWhenWorkIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go RestHeap(ctx)
		time.Sleep(restPeriod / 2)

		began := forced()
		for range 5 {
			sink = make([]byte, 2*worthGiving)
			time.Sleep(restPeriod)
		}
		if n := forced() - began; n != 0 {
			t.Errorf("%d times during work", n)
		}

		sink = nil
		time.Sleep(3 * restPeriod)
		if n := forced() - began; n != 1 {
			t.Errorf("%d times after work", n)
		}
	})
}
