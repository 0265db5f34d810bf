package image

import (
	"os"
	"path/filepath"
	"testing"
)

func openEmpty(t *testing.T) *Store {
	t.Helper()
	s, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func unpacked(t *testing.T, s *Store, name string) (temp string) {
	t.Helper()
	temp = filepath.Join(s.config.Dir, "tmp", name)
	if err := os.MkdirAll(filepath.Join(temp, "fs", name), 0o755); err != nil {
		t.Fatal(err)
	}
	return temp
}

// Two pulls can finish one layer: one that was given up when it had all of it, and the next.
func TestLayerThatIsThereIsNotReplaced(t *testing.T) {
	s := openEmpty(t)
	s.holdLocked("pull", []string{"chain"})
	for _, who := range []string{"first", "second"} {
		if err := s.commitLayer(unpacked(t, s, who), "chain", layerInfo{Bytes: 1, Inodes: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(s.layerDir("chain"), "first")); err != nil {
		t.Errorf("the layer that containers may use: %v", err)
	}
}

// A pull that was given up may have all of a layer only when what it left has been collected already.
func TestLayerThatNobodyWaitsForIsNotKept(t *testing.T) {
	s := openEmpty(t)
	if err := s.commitLayer(unpacked(t, s, "late"), "chain", layerInfo{}); err == nil || s.hasLayer("chain") {
		t.Errorf("error %v, kept %t", err, s.hasLayer("chain"))
	}
}

// An image may be removed and pulled again while its first sync is under way, which then says nothing about
// the new layers.
func TestSyncOfARemovedImageDoesNotCountForTheNext(t *testing.T) {
	s := openEmpty(t)
	first := &record{ID: "sha256:aa", Config: []byte("{}"), arrival: 1}
	again := &record{ID: "sha256:aa", Config: []byte("{}"), arrival: 2}
	if err := s.put(again); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		began  *record
		synced bool
	}{{first, false}, {again, true}} {
		if err := s.sync(c.began); err != nil {
			t.Fatal(err)
		}

		if got := s.images["sha256:aa"].Synced; got != c.synced {
			t.Errorf("after the sync that began for pull %d: safe %t, want %t",
				c.began.arrival, got, c.synced)
		}
	}
}
