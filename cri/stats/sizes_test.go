package stats

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cri/rootfs"
)

// clock is a time that tests set.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(c.Load(), 0) }

func newClock() *clock {
	c := &clock{}
	c.Store(1_700_000_000)
	return c
}

func (c *clock) pass(d time.Duration) { c.Add(int64(d / time.Second)) }

func TestOldSizeIsGivenWhileANewOneIsCounted(t *testing.T) {
	counts, proceed := make(chan string, 10), make(chan struct{})
	clock := newClock()
	s := newSizes(func(id string) (rootfs.Usage, error) {
		counts <- id
		<-proceed
		return rootfs.Usage{Bytes: 7, Inodes: 2}, nil
	}, clock.now)

	// Only the first call waits, and only it counts.
	go func() { proceed <- struct{}{} }()
	for range 3 {
		if u, at, err := s.of("a"); u.Bytes != 7 || at != clock.now() || err != nil {
			t.Fatalf("%+v at %v, %v", u, at, err)
		}
	}

	if len(counts) != 1 {
		t.Errorf("%d counts, want 1", len(counts))
	}

	// The second count does not proceed, and nobody waits for it.
	counted := clock.now()
	clock.pass(2 * maxAge)
	for range 3 {
		if u, at, _ := s.of("a"); u.Inodes != 2 || at != counted {
			t.Errorf("%+v at %v", u, at)
		}
	}

	<-counts
	<-counts
	close(proceed)
	if len(counts) != 0 {
		t.Errorf("%d more counts", len(counts))
	}
}

func TestSizesOfContainersThatAreGoneAreForgotten(t *testing.T) {
	counts := 0
	s := newSizes(func(string) (rootfs.Usage, error) {
		counts++
		return rootfs.Usage{}, nil
	}, newClock().now)

	for _, id := range []string{"a", "b"} {
		if _, _, err := s.of(id); err != nil {
			t.Fatal(err)
		}
	}

	s.keep(map[string]bool{"b": true})
	for _, id := range []string{"a", "b"} {
		if _, _, err := s.of(id); err != nil {
			t.Fatal(err)
		}
	}

	if counts != 3 {
		t.Errorf("%d counts, want 3: a, b, and a once more", counts)
	}
}

func TestSizeThatCannotBeCountedIsAnError(t *testing.T) {
	broken := errors.New("broken")
	s := newSizes(func(string) (rootfs.Usage, error) { return rootfs.Usage{}, broken }, newClock().now)
	if _, _, err := s.of("a"); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}
