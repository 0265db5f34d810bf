package layer_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/cri/stats/layer"
	"github.com/trivet-node/trivet/internal/diskusage"
)

// store has the layer of each container in a directory, and its volumes in another one.
type store struct{ dir string }

func (s store) Dirs(id string) []string {
	return []string{filepath.Join(s.dir, id, "upper"), filepath.Join(s.dir, id, "volumes")}
}

func (s store) Project(id string) string { return filepath.Join(s.dir, id) }

func (s store) Dir() string { return s.dir }

func newMeter(t testing.TB, ids ...string) (*layer.Meter, store) {
	t.Helper()
	s := store{t.TempDir()}
	for _, id := range ids {
		dir := s.Dirs(id)[0]
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, 1<<16), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	m := layer.New(s, slog.New(slog.DiscardHandler))
	t.Cleanup(m.Close)
	return m, s
}

func TestLayersHaveAFigureFromTheFirstCallOn(t *testing.T) {
	m, s := newMeter(t, "a")
	got := m.Measure("a", 1)
	if got.Bytes < 1<<16 || got.Inodes != 2 || got.Time.IsZero() || m.Dir() != s.dir {
		t.Errorf("%+v of a layer in %s", got, m.Dir())
	}
	if gone := m.Measure("gone", diskusage.Ended); gone.Usage != (diskusage.Usage{}) || gone.Time.IsZero() {
		t.Errorf("%+v of a layer that is not there", gone)
	}
}

func TestLayersThatAreNotKeptAreCountedAgain(t *testing.T) {
	m, s := newMeter(t, "a")
	before := m.Measure("a", diskusage.Ended)
	if err := os.Remove(filepath.Join(s.Dirs("a")[0], "file")); err != nil {
		t.Fatal(err)
	}

	if got := m.Measure("a", diskusage.Ended); got.Usage != before.Usage {
		t.Errorf("%+v after %+v: it was counted though nobody has run", got, before)
	}

	m.Keep(func(string) bool { return false })
	if got := m.Measure("a", diskusage.Ended); got.Inodes != 1 {
		t.Errorf("%+v", got)
	}
}

// What the layers of 100 containers add to a call when none of them has run.
func BenchmarkLayersOf100IdleContainers(b *testing.B) {
	var ids []string
	for i := range 100 {
		ids = append(ids, string(rune('A'+i)))
	}

	m, _ := newMeter(b, ids...)
	for b.Loop() {
		for _, id := range ids {
			m.Measure(id, 1)
		}
	}
}
