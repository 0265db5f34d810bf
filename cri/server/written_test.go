package server

import (
	"errors"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cri/rootfs"
)

func TestWrittenIsCountedOffThePath(t *testing.T) {
	counts, hold := make(chan string, 10), make(chan struct{}, 10)
	w := newWritten(func(id string) (rootfs.Usage, error) {
		counts <- id
		<-hold
		return rootfs.Usage{Bytes: 7, Inodes: 2}, nil
	})

	hold <- struct{}{}

	// only the first call counts
	for range 3 {
		if u, at, err := w.of("a"); u.Bytes != 7 || at.IsZero() || err != nil {
			t.Fatalf("%v %v %v", u, at, err)
		}
	}

	if len(counts) != 1 {
		t.Errorf("%d counts", len(counts))
	}

	w.mu.Lock()
	w.sizes["a"].at = time.Now().Add(-2 * maxAge)
	w.mu.Unlock()

	// an old size is given while one count goes on
	for range 3 {
		if u, _, _ := w.of("a"); u.Inodes != 2 {
			t.Error(u)
		}
	}

	<-counts
	<-counts
	hold <- struct{}{}
	w.keep(map[string]bool{})
	if len(w.sizes) != 0 || len(counts) != 0 {
		t.Errorf("kept %v, counted %d more", w.sizes, len(counts))
	}
}

func TestWrittenTellsErrors(t *testing.T) {
	w := newWritten(func(string) (rootfs.Usage, error) { return rootfs.Usage{}, errors.New("broken") })
	if _, _, err := w.of("a"); err == nil {
		t.Error("no error")
	}
}
