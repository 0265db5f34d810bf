package group

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/csi/volume"
)

// fakeVolumes keep snapshots in memory, which outlive a kill.
type fakeVolumes struct {
	snapshots map[string]volume.Volume // by ID
	steps     int                      // until the process is killed; 0: it is not
	err       error
}

// errKilled is what a killed process panics with.
var errKilled = errors.New("killed")

func (f *fakeVolumes) step() {
	if f.steps--; f.steps == 0 {
		panic(errKilled)
	}
}

func (f *fakeVolumes) Together(_ context.Context, requests []volume.Request) ([]volume.Volume, error) {
	f.step()
	if f.err != nil {
		return nil, f.err
	}
	var made []volume.Volume
	for _, r := range requests {
		id := volume.SnapshotID(r.Name)
		f.snapshots[id] = volume.Volume{
			Spec:    volume.Spec{ID: id, Source: r.Source, Snapshot: true},
			Created: time.Unix(1, 0),
		}
		made = append(made, f.snapshots[id])
		f.step()
	}
	return made, nil
}

func (f *fakeVolumes) Snapshot(id string) (volume.Volume, error) {
	v, ok := f.snapshots[id]
	if !ok {
		return v, fmt.Errorf("%w: %s", volume.ErrNotFound, id)
	}
	return v, nil
}

func (f *fakeVolumes) Delete(_ context.Context, id string) error {
	f.step()
	delete(f.snapshots, id)
	return f.err
}

// node is a directory of records with volumes that outlive the Groups.
type node struct {
	*Groups
	t       *testing.T
	dir     string
	volumes *fakeVolumes
	report  Report
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), volumes: &fakeVolumes{snapshots: map[string]volume.Volume{}}}
	n.restart()
	return n
}

func (n *node) restart() {
	n.t.Helper()
	var err error
	n.volumes.steps = 0
	n.Groups, n.report, err = Open(n.t.Context(), n.dir, n.volumes)
	if err != nil {
		n.t.Fatal(err)
	}
}

// killedAfter does something, and reports whether it was killed after so many steps.
func (n *node) killedAfter(steps int, do func()) (killed bool) {
	n.volumes.steps = steps
	defer func() {
		switch r := recover(); r {
		case nil:
		case any(errKilled):
			killed = true
		default:
			panic(r)
		}
	}()
	do()
	return false
}

func (n *node) mustCreate(name string, sources ...string) Group {
	n.t.Helper()
	g, err := n.Create(n.t.Context(), name, sources)
	if err != nil {
		n.t.Fatal(err)
	}
	return g
}

func (n *node) checkNothing(when string) {
	n.t.Helper()
	records, err := filepath.Glob(filepath.Join(n.dir, "*.json"))
	if err != nil || len(records) > 0 || len(n.volumes.snapshots) > 0 {
		n.t.Errorf("%s there are records %q and snapshots %q", when, records,
			slices.Collect(maps.Keys(n.volumes.snapshots)))
	}
}

func TestGroupHasASnapshotOfEachVolume(t *testing.T) {
	n := newNode(t)
	g := n.mustCreate("g", "vol-b", "vol-a")
	if len(g.Snapshots) != 2 || g.Snapshots[0].Source != "vol-a" || g.Snapshots[1].Source != "vol-b" ||
		!g.Created.Equal(time.Unix(1, 0)) {
		t.Errorf("group %+v", g)
	}

	// Repeated, in another order, after a restart.
	n.restart()
	again := n.mustCreate("g", "vol-a", "vol-b")
	got, err := n.Get(g.ID)
	if again.ID != g.ID || err != nil || len(got.Snapshots) != 2 || len(n.volumes.snapshots) != 2 {
		t.Errorf("repeated: %+v; found %+v, %v", again, got, err)
	}
	for _, s := range g.Snapshots {
		if n.Of(s.ID) != g.ID {
			t.Errorf("snapshot %s is of group %q", s.ID, n.Of(s.ID))
		}
	}

	if _, err := n.Create(t.Context(), "g", []string{"vol-a"}); !errors.Is(err, volume.ErrConflict) {
		t.Errorf("of other volumes: %v", err)
	}

	for range 2 {
		if err := n.Delete(t.Context(), g.ID); err != nil {
			t.Error(err)
		}
	}
	if _, err := n.Get(g.ID); !errors.Is(err, volume.ErrNotFound) || n.Of(g.Snapshots[0].ID) != "" {
		t.Errorf("deleted: %v", err)
	}
	n.checkNothing("after the deletion")
}

func TestGroupThatCannotBeIsRefused(t *testing.T) {
	n := newNode(t)
	many := make([]string, Most+1)
	for i := range many {
		many[i] = fmt.Sprint("vol-", i)
	}
	for what, c := range map[string]struct {
		name    string
		sources []string
		want    error
	}{
		"no name":     {"", []string{"vol-a"}, volume.ErrInvalid},
		"long name":   {strings.Repeat("n", 129), []string{"vol-a"}, volume.ErrInvalid},
		"no volumes":  {"g", nil, volume.ErrInvalid},
		"too many":    {"g", many, volume.ErrInvalid},
		"twice":       {"g", []string{"vol-a", "vol-b", "vol-a"}, volume.ErrInvalid},
		"a path":      {"g", []string{"../x"}, volume.ErrNotFound},
		"a snapshot":  {"g", []string{"snap-1"}, volume.ErrNotFound},
		"it fails":    {"g", []string{"vol-a"}, volume.ErrFull},
		"it fails, 2": {"h", []string{"vol-a", "vol-b"}, volume.ErrFull},
	} {
		t.Run(what, func(t *testing.T) {
			n.volumes.err = nil
			if errors.Is(c.want, volume.ErrFull) {
				n.volumes.err = c.want
			}
			if _, err := n.Create(t.Context(), c.name, c.sources); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}

	// What could not be taken away then is when the group is deleted, or made.
	n.volumes.err = nil
	for _, id := range []string{ID("g"), ID("h")} {
		if err := n.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	n.checkNothing("after failures")
}

// A group is complete or absent, wherever the process was killed.
func TestGroupThatWasCutShortIsTakenAway(t *testing.T) {
	killed := 1
	for ; ; killed++ {
		n := newNode(t)
		cut := n.killedAfter(killed, func() { n.mustCreate("g", "vol-a", "vol-b") })
		n.restart()
		if !cut {
			break
		}
		n.checkNothing(fmt.Sprintf("killed in step %d of making it", killed))
		n.mustCreate("g", "vol-a", "vol-b")
	}
	if killed < 4 {
		t.Errorf("it was killed in %d places only", killed)
	}

	for killed = 1; ; killed++ {
		n := newNode(t)
		g := n.mustCreate("g", "vol-a", "vol-b")
		cut := n.killedAfter(killed, func() { _ = n.Delete(t.Context(), g.ID) })
		n.restart()
		n.checkNothing(fmt.Sprintf("killed in step %d of deleting it", killed))
		if !cut {
			break
		}
	}
}

// Whose record was set aside, or is of another version, keeps its snapshots until they are deleted.
func TestGroupWhoseRecordIsNotKnownIsNotMadeAgain(t *testing.T) {
	for what, text := range map[string]string{
		"torn":               `{"version`,
		"of another version": `{"version": 2, "phase": "ready", "name": "g"}`,
	} {
		n := newNode(t)
		g := n.mustCreate("g", "vol-a", "vol-b")
		if err := os.WriteFile(filepath.Join(n.dir, g.ID+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		n.restart()
		for range 2 {
			_, err := n.Create(t.Context(), "g", []string{"vol-a", "vol-b"})
			if !errors.Is(err, volume.ErrConflict) || !strings.Contains(err.Error(), g.Snapshots[0].ID) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if len(n.volumes.snapshots) != 2 {
			t.Errorf("%s: left are %v", what, n.volumes.snapshots)
		}

		for _, s := range g.Snapshots {
			delete(n.volumes.snapshots, s.ID)
		}
		n.mustCreate("g", "vol-a", "vol-b")
	}
}

func TestRecordsThatAreNotKnownAreLeftAlone(t *testing.T) {
	n := newNode(t)
	g := n.mustCreate("g", "vol-a")
	foreign := filepath.Join(n.dir, "group-x.json")
	torn := filepath.Join(n.dir, ID("torn")+".json")
	err := errors.Join(
		os.WriteFile(foreign, []byte(`{"version": 2, "phase": "making", "name": "x"}`), 0o600),
		os.WriteFile(torn, []byte(`{"version`), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}

	n.restart()
	if len(n.report.Unreadable) != 1 || !errors.Is(n.report.Stuck["group-x"], volume.ErrDamaged) {
		t.Errorf("report %+v", n.report)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
	if _, err := n.Get(g.ID); err != nil {
		t.Error(err)
	}
}

func FuzzRecordsOfGroups(f *testing.F) {
	f.Add([]byte(`{"version": 1, "phase": "ready", "name": "g", "sources": ["vol-a"]}`))
	f.Add([]byte(`{"version": 1, "phase": "deleting", "name": "g", "sources": ["../x", ""]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ID("g")+".json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		volumes := &fakeVolumes{snapshots: map[string]volume.Volume{}}
		g, _, err := Open(t.Context(), dir, volumes)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = g.Get(ID("g"))
		if err := g.Delete(t.Context(), ID("g")); err != nil {
			t.Error(err)
		}
	})
}
