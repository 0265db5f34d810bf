package nodetest_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/csi/group"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

func groupsOf(t *testing.T, n *nodetest.Node) *group.Groups {
	t.Helper()
	groups, report, err := group.Open(t.Context(), filepath.Join(n.Dir, "groups"), n.Store)
	if err != nil || len(report.Stuck)+len(report.Unreadable) > 0 {
		t.Fatalf("%v, %+v", err, report)
	}
	return groups
}

// pooled makes a volume of each kind that the pool has, and writes to it.
func pooled(n *nodetest.Node) (byID map[string]volume.Volume) {
	n.T.Helper()
	byID = map[string]volume.Volume{}
	for _, r := range []volume.Request{
		{Name: "b", Required: 64 << 20},
		{Name: "cow", Required: 64 << 20, NoCOW: new(false)},
		{Name: "x", Required: 320 << 20, FSType: "xfs"},
		{Name: "raw", Required: 64 << 20, Access: volume.Block},
	} {
		r.Backend = "btrfs"
		v := n.MustCreate(r)
		n.Write(v, n.Use(v, "pod"))
		byID[v.ID] = v
	}
	return byID
}

// Volumes of all kinds that the pool has are in one group, in use, and volumes that are made from it have
// what they had.
func TestGroupSnapshotsBecomeVolumes(t *testing.T) {
	n := nodetest.New(t, 4<<30)
	groups := groupsOf(t, n)
	kinds := pooled(n)
	sources := slices.Collect(maps.Keys(kinds))
	free, err := n.Available(volume.Request{Backend: "btrfs", Access: volume.Filesystem})
	if err != nil {
		t.Fatal(err)
	}

	g, err := groups.Create(t.Context(), "g", sources)
	if err != nil || len(g.Snapshots) != len(sources) {
		t.Fatalf("%+v, %v", g, err)
	}
	for _, s := range g.Snapshots {
		source := kinds[s.Source]
		n.Overwrite(source, n.Target(source.ID, "pod"), "later")
		copied := n.MustCreate(volume.Request{
			Name:     "of-" + source.Name,
			Required: source.Size,
			Access:   source.Access,
			Source:   s.ID,
		})
		restored := copied
		restored.Name = source.Name
		n.CheckRead(restored, n.Use(copied, "reader"))
		n.Remove(copied.ID, "reader")
	}

	n.Kill()
	n.Start()
	groups = groupsOf(t, n)
	if again, err := groups.Get(g.ID); err != nil || len(again.Snapshots) != len(sources) {
		t.Errorf("after a kill: %+v, %v", again, err)
	}
	if err := groups.Delete(t.Context(), g.ID); err != nil {
		t.Error(err)
	}
	for id := range kinds {
		n.Remove(id, "pod")
	}
	n.Eventually("the bytes are free", func() error {
		now, err := n.Available(volume.Request{Backend: "btrfs", Access: volume.Filesystem})
		if err == nil && now < free {
			err = errors.New("they are not")
		}
		return err
	})
	if left, err := os.ReadDir(filepath.Join(n.Dir, "pool", "volumes")); err != nil || len(left) > 0 {
		t.Errorf("left in the pool: %v, %v", left, err)
	}
}

// Images on the disk have no snapshots, neither alone nor with others.
func TestGroupOfImagesIsRefused(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	image := n.MustCreate(volume.Request{
		Name:     "i",
		Required: 64 << 20,
		Backend:  "image",
		FSType:   "ext4",
	})
	pool := n.MustCreate(volume.Request{Name: "b", Required: 64 << 20, Backend: "btrfs"})
	groups := groupsOf(t, n)

	for _, sources := range [][]string{{image.ID}, {image.ID, pool.ID}} {
		if _, err := groups.Create(t.Context(), "g", sources); !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("%q: %v", sources, err)
		}
	}

	_, err := groups.Create(t.Context(), "g", []string{pool.ID, "vol-none"})
	if !errors.Is(err, volume.ErrNotFound) {
		t.Errorf("with a volume that is not there: %v", err)
	}
	if left := n.Snapshots("", "", 0); len(left) > 0 {
		t.Errorf("snapshots are left: %v", left)
	}

	n.Remove(image.ID)
	n.Remove(pool.ID)
}
