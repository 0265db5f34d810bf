package nodetest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

// misses waits until a node says that a volume has a damage; nil: none.
func misses(n *nodetest.Node, id string, want error) {
	n.T.Helper()
	n.Eventually(fmt.Sprintf("volume %s has damage %v", id, want), func() error {
		v, err := n.Get(id)
		if err == nil && !errors.Is(v.Damage, want) {
			err = fmt.Errorf("it has %q", fmt.Sprint(v.Damage))
		}
		return err
	})
}

// content is what of a volume is taken away, and where to: beneath the data directory, {} is the ID.
type content struct {
	request   volume.Request
	of, aside string
}

func (content) path(n *nodetest.Node, path, id string) string {
	return filepath.Join(n.Dir, strings.ReplaceAll(path, "{}", id))
}

var contents = map[string]content{
	"subvolume": {volume.Request{Backend: "btrfs"}, "pool/volumes/{}", "pool/aside"},
	"image in the pool": {
		volume.Request{Backend: "btrfs", Access: volume.Block},
		"pool/volumes/{}/image", "pool/volumes/{}/aside",
	},
	"image": {volume.Request{Backend: "image", FSType: "ext4"}, "images/{}.img", "aside"},
}

// Volumes that lose their content while the driver runs are lost, until it is back.
func TestLostContentIsMissedAndFoundAgain(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	for name, c := range contents {
		t.Run(name, func(t *testing.T) {
			c.request.Name, c.request.Required = name, 64<<20
			v := n.MustCreate(c.request)
			n.Write(v, n.Use(v, "pod"))
			n.Leave(v.ID, "pod")

			path, aside := c.path(n, c.of, v.ID), c.path(n, c.aside, v.ID)
			if err := os.Rename(path, aside); err != nil {
				t.Fatal(err)
			}
			misses(n, v.ID, volume.ErrLost)

			if err := os.Rename(aside, path); err != nil {
				t.Fatal(err)
			}
			misses(n, v.ID, nil)
			n.CheckRead(v, n.Use(v, "pod"))
			n.Remove(v.ID, "pod")
		})
	}
}

// With directories, the driver may have been restarted meanwhile, and not know the number of the project.
func TestLostDirectoryIsFoundAgain(t *testing.T) {
	n := nodetest.NewOnQuotas(t, "ext4", 2<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 64 << 20, Backend: "quota"})
	n.Write(v, n.Use(v, "pod"))
	n.Leave(v.ID, "pod")
	found, err := filepath.Glob(filepath.Join(n.Dir, "quota/volumes", v.ID+".*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}

	aside := filepath.Join(n.Dir, "aside")
	if err := os.Rename(found[0], aside); err != nil {
		t.Fatal(err)
	}
	misses(n, v.ID, volume.ErrLost)
	n.Kill()
	n.Start()
	misses(n, v.ID, volume.ErrLost)

	if err := os.Rename(aside, found[0]); err != nil {
		t.Fatal(err)
	}
	misses(n, v.ID, nil)
	n.CheckRead(v, n.Use(v, "pod"))
	n.Remove(v.ID, "pod")
}

// A subvolume that somebody has deleted is lost for good: no empty one comes in its place, whatever becomes
// of the pool, and its volume can be deleted.
func TestDeletedSubvolumeIsNotMadeAgain(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 64 << 20, Backend: "btrfs"})
	dir, err := os.Open(filepath.Join(n.Dir, "pool", "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(btrfs.Destroy(dir, v.ID), btrfs.Sync(dir), dir.Close()); err != nil {
		t.Fatal(err)
	}

	misses(n, v.ID, volume.ErrLost)
	n.Kill()
	if report := n.Start(); !errors.Is(report.Damaged[v.ID], volume.ErrLost) {
		t.Errorf("after a restart: %+v", report)
	}
	if report := n.Reboot(); !errors.Is(report.Damaged[v.ID], volume.ErrLost) {
		t.Errorf("after a reboot: %+v", report)
	}
	if err := n.Delete(t.Context(), v.ID); err != nil {
		t.Error(err)
	}
}

// BenchmarkLook is what a driver does twice a minute.
func BenchmarkLook(b *testing.B) {
	for name, c := range map[string]struct {
		request volume.Request
		count   int
	}{
		"5000 subvolumes":        {volume.Request{Backend: "btrfs"}, 5000},
		"500 images in the pool": {volume.Request{Backend: "btrfs", Access: volume.Block}, 500},
	} {
		b.Run(name, func(b *testing.B) {
			n := nodetest.New(b, 12<<30)
			volumes := make([]volume.Volume, c.count)
			var group errgroup.Group
			group.SetLimit(16)
			for i := range volumes {
				r := c.request
				r.Name, r.Required = fmt.Sprint("v", i), 1<<20
				group.Go(func() error {
					volumes[i] = n.MustCreate(r)
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				b.Fatal(err)
			}

			for b.Loop() {
				seen, err := n.Pool.Inspect()
				for _, v := range volumes {
					err = errors.Join(err, seen.Of(v.Spec))
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
