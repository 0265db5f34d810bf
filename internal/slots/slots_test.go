package slots_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trivet-node/trivet/internal/slots"
)

// take takes a slot and returns how long that took.
func take(t *testing.T, s *slots.Slots) (release func(), took time.Duration) {
	t.Helper()
	began := time.Now()
	release, err := s.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return release, time.Since(began)
}

func TestASlotIsOnesUntilItIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, time.Minute)
		release, _ := take(t, s)
		time.AfterFunc(time.Second, release)
		release, took := take(t, s)
		if took != time.Second {
			t.Errorf("the second one waited for %s", took)
		}

		release()
	})
}

func TestWhoHangsGoesOnWithoutItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slots.New(1, time.Minute)
		hangs, _ := take(t, s)
		other, took := take(t, s)
		if took != time.Minute {
			t.Errorf("the second one waited for %s", took)
		}

		// The slot is the other's by now.
		hangs()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Take(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v: a slot was given back twice", err)
		}

		other()
	})
}
