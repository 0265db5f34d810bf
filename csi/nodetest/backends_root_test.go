package nodetest_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
)

func TestSizesHold(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	for _, c := range []struct {
		backend, fs string
		size        int64
	}{{"btrfs", "", 64 << 20}, {"image", "ext4", 64 << 20}, {"image", "xfs", 320 << 20}} {
		t.Run(c.backend+" "+c.fs, func(t *testing.T) {
			v := n.MustCreate(volume.Request{
				Name:     "size-" + c.backend + c.fs,
				Required: c.size,
				Backend:  c.backend,
				FSType:   c.fs,
			})

			target := n.Use(v, "pod")
			written := n.Fill(target, 2*c.size)
			if written > c.size*101/100 {
				t.Errorf("a volume of %d bytes took %d", c.size, written)
			}

			// What file systems of this size leave for data.
			least := c.size * 70 / 100
			if c.backend == "btrfs" {
				least = c.size
			}
			if written < least {
				t.Errorf("a volume of %d bytes took only %d", c.size, written)
			}

			_, usage, err := n.Stats(v.ID, target)
			if err != nil || usage.Used < written*95/100 || usage.Total > c.size ||
				usage.Available > c.size/50 {
				t.Errorf("usage %+v, %v; written %d", usage, err, written)
			}

			n.Remove(v.ID, "pod")
		})
	}
}

func TestVolumesGrowInUse(t *testing.T) {
	n := nodetest.New(t, 2<<30)
	for _, r := range []volume.Request{
		{Name: "b", Backend: "btrfs", Access: volume.Filesystem},
		{Name: "x", Backend: "image", FSType: "xfs", Access: volume.Filesystem},
		{Name: "raw", Backend: "image", Access: volume.Block},
	} {
		r.Required = 320 << 20
		v := n.MustCreate(r)
		target := n.Use(v, "pod")
		grown, err := n.Grow(t.Context(), v.ID, 640<<20, 0)
		if err != nil || grown.Size != 640<<20 {
			t.Fatalf("%s: %v, %v", r.Name, grown, err)
		}

		for range 2 {
			if _, err := n.GrowStaged(t.Context(), v.ID); n.GrowsStaged(v) && err != nil {
				t.Fatalf("%s: %v", r.Name, err)
			}
		}

		_, usage, err := n.Stats(v.ID, target)
		if err != nil || usage.Total < 560<<20 {
			t.Errorf("%s: usage %+v, %v", r.Name, usage, err)
		}

		if r.Access == volume.Filesystem {
			if got := n.Fill(target, 500<<20); got < 500<<20 {
				t.Errorf("%s: only %d bytes fit after growth", r.Name, got)
			}
		}

		if again, err := n.Grow(t.Context(), v.ID, 10<<20, 0); err != nil || again.Size != 640<<20 {
			t.Errorf("%s: growing to less gave %v, %v", r.Name, again, err)
		}
		if _, err := n.Grow(t.Context(), v.ID, 1<<50, 0); !errors.Is(err, volume.ErrSize) {
			t.Errorf("%s: growing to 1 PiB gave %v", r.Name, err)
		}

		n.Remove(v.ID, "pod")
	}
}

func TestDeleteNeedsNoRoom(t *testing.T) {
	for _, c := range []struct {
		backend, fs string
		size        int64
	}{
		{"image", "ext4", 128 << 20},
		{"btrfs", "", 1 << 30},
	} {
		t.Run(c.backend, func(t *testing.T) {
			n := nodetest.NewOnDisk(t, 640<<20+c.size, 512<<20+c.size/2)
			v := n.MustCreate(
				volume.Request{
					Name:     "v",
					Required: c.size/2 + 32<<20,
					Backend:  c.backend,
					FSType:   c.fs,
				},
			)

			n.Fill(n.Use(v, "pod"), c.size/2)
			n.Leave(v.ID, "pod")
			other := n.MustCreate(volume.Request{Name: "other", Required: 16 << 20, Backend: "btrfs"})
			n.Write(other, n.Use(other, "pod"))
			if err := n.Sync(); err != nil {
				t.Fatal(err)
			}

			n.FillDisk()
			if err := n.Delete(t.Context(), v.ID); err != nil {
				t.Fatal(err)
			}

			n.Eventually("there is room", func() error {
				var disk unix.Statfs_t
				if err := unix.Statfs(n.Dir, &disk); err != nil {
					return err
				}
				if free := int64(disk.Bavail) * disk.Bsize; free < 50<<20 {
					return fmt.Errorf("%d bytes are free", free)
				}

				return nil
			})

			n.Write(other, n.Target(other.ID, "pod"))
			n.CheckRead(other, n.Target(other.ID, "pod"))
			n.Remove(other.ID, "pod")
		})
	}
}

// The disk is so small that both volumes have to have the same blocks of it.
func TestDeletedDataIsNotInTheNextVolume(t *testing.T) {
	n := nodetest.NewOnDisk(t, 768<<20, 512<<20)
	for _, backend := range []string{"image", "btrfs"} {
		r := volume.Request{
			Name:     "first",
			Required: 144 << 20,
			Backend:  backend,
			Access:   volume.Block,
		}
		first := n.MustCreate(r)
		device, err := os.OpenFile(n.Use(first, "a"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range r.Required >> 20 {
			if _, err := device.Write(bytes.Repeat([]byte("somebody's data "), 1<<16)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(device.Sync(), device.Close()); err != nil {
			t.Fatal(err)
		}
		n.Remove(first.ID, "a")

		r.Name = "next"
		next := n.MustCreate(r)
		data, err := os.ReadFile(n.Use(next, "a"))
		if err != nil || len(data) != int(r.Required) || !bytes.Equal(data, make([]byte, len(data))) {
			t.Errorf("%s: the next volume of %d bytes is not empty: %v", backend, len(data), err)
		}
		n.Remove(next.ID, "a")
	}
}

// All backends take from the same bytes, of which two drivers on one disk are each given a part.
func TestBackendsTogetherPromiseNoMoreThanTheirPart(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	n.RestartWithMost(1 << 30)
	n.MustCreate(volume.Request{Name: "image", Required: 400 << 20, Backend: "image"})
	n.MustCreate(volume.Request{Name: "pool", Required: 400 << 20, Backend: "btrfs"})
	for _, backend := range []string{"image", "btrfs"} {
		r := volume.Request{
			Name:     "another",
			Required: 400 << 20,
			Backend:  backend,
			Access:   volume.Filesystem,
		}
		if _, err := n.Create(t.Context(), r); !errors.Is(err, volume.ErrFull) {
			t.Errorf("1200 of 1024 MiB were promised with backend %s: %v", backend, err)
		}
		if free, err := n.Available(r); err != nil || free != 224<<20 {
			t.Errorf("backend %s offers %d bytes, %v", backend, free, err)
		}
	}
}

func TestAvailableKnowsTheSmallestVolume(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	n.RestartWithMost(2 << 30)
	free := func(fsType string) int64 {
		backend := map[bool]string{true: "btrfs", false: "image"}[fsType == ""]
		bytes, err := n.Available(volume.Request{Access: volume.Filesystem, Backend: backend, FSType: fsType})
		if err != nil {
			t.Fatal(err)
		}

		return bytes
	}

	pool := free("")
	if disk := free("xfs"); disk == pool {
		t.Errorf("volumes with xfs are no part of the pool, which has %d", pool)
	}

	n.MustCreate(volume.Request{
		Name:     "most",
		Required: free("xfs") - 200<<20,
		Access:   volume.Block,
		Backend:  "image",
	})
	if xfs, ext4 := free("xfs"), free("ext4"); xfs != 0 || ext4 == 0 {
		t.Errorf("below 300 MiB there is no xfs: %d bytes for xfs, %d for ext4", xfs, ext4)
	}

	n.Remove(volume.ID("most"))
}

func TestMountOptionsDecideTheBackendOrAreRefusedByName(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	for _, c := range []struct {
		backend, options string
		size             int64
		want             string // backend and file system, or a part of the refusal
	}{
		{"", "", 16 << 20, "btrfs btrfs"},
		{"", "_netdev,nofail,x-systemd.automount,noatime,nodev", 16 << 20, "btrfs btrfs"},
		{"", "discard", 16 << 20, "image ext4"},
		{"", "discard", 320 << 20, "image xfs"},
		{"", "data=journal", 320 << 20, "image ext4"},
		{"", "compress=zstd", 16 << 20, `"compress=zstd"`},
		{"", "discard,nonsense", 16 << 20, `"nonsense"`},
		{"", "source=/dev/sda", 16 << 20, `"source=/dev/sda"`},
		{"btrfs", "discard", 16 << 20, `"discard"`},
		{"image", "nonsense", 16 << 20, `"nonsense"`},
	} {
		t.Run(c.backend+" "+c.options, func(t *testing.T) {
			options := []string{c.options}
			v, err := n.Create(t.Context(), volume.Request{
				Name:     "v " + c.backend + c.options,
				Required: c.size,
				Backend:  c.backend,
				Access:   volume.Filesystem,
				Options:  options,
			})
			if err != nil {
				if !errors.Is(err, volume.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %s", err, c.want)
				}

				// If it were only said to be no room, the claim would wait, and nobody would see why.
				r := volume.Request{Backend: c.backend, Access: volume.Filesystem, Options: options}
				if free, err := n.Available(r); !errors.Is(err, volume.ErrInvalid) {
					t.Errorf("%d bytes are offered, %v; want the same refusal", free, err)
				}

				return
			}

			if got := v.Backend + " " + v.FSType; got != c.want {
				t.Errorf("volume of %s, want %s", got, c.want)
			}

			u := publish.Use{Access: volume.Filesystem, Options: options}
			if err := n.Stage(t.Context(), v.ID, n.StagePath(v.ID), u); err != nil {
				t.Error(err)
			}

			n.Remove(v.ID)
		})
	}
}

// A database writes over what it has written.
func TestOverwritingInPlaceNeverRunsOutOfSpace(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	for _, r := range []volume.Request{{Name: "default"}, {Name: "image", Backend: "image"}} {
		r.Required = 64 << 20
		v := n.MustCreate(r)
		f, err := os.Create(filepath.Join(n.Use(v, "pod"), "table"))
		if err != nil {
			t.Fatal(err)
		}

		const blocks = (50 << 20) / 8192
		if _, err := f.Write(make([]byte, blocks*8192)); err != nil {
			t.Fatal(err)
		}

		block := make([]byte, 8192)
		for i := range 4 * blocks {
			if _, err := f.WriteAt(block, rand.Int64N(blocks)*8192); err != nil {
				t.Fatalf("%s: after %d writes: %v", r.Name, i, err)
			}

			if i%16 == 0 {
				if err := unix.Fdatasync(int(f.Fd())); err != nil {
					t.Fatalf("%s: after %d writes: %v", r.Name, i, err)
				}
			}
		}

		f.Close()
		n.Remove(v.ID, "pod")
	}
}

func TestHundredVolumesAtOnce(t *testing.T) {
	n := nodetest.New(t, 4<<30)
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			r := volume.Request{Name: fmt.Sprintf("v%d", i), Required: 16 << 20, Access: volume.Filesystem}
			if i%10 == 0 {
				r.Backend = "image"
			}

			v, err := n.Create(t.Context(), r)
			if err != nil {
				t.Error(err)
				return
			}

			u, target := publish.Use{Access: v.Access}, n.Target(v.ID, "pod")
			for _, step := range []func() error{
				func() error { return n.Stage(t.Context(), v.ID, n.StagePath(v.ID), u) },
				func() error { return n.Publish(t.Context(), v.ID, target, u) },
				func() error { return os.WriteFile(filepath.Join(target, "f"), []byte(v.ID), 0o600) },
				func() error { return n.Unpublish(t.Context(), v.ID, target) },
				func() error { return n.Unstage(t.Context(), v.ID, n.StagePath(v.ID)) },
				func() error { return n.Delete(t.Context(), v.ID) },
			} {
				if err := step(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}

	group.Wait()
	if left := n.List("", 0); len(left) > 0 {
		t.Errorf("%d volumes are left", len(left))
	}

	n.Kill()
	entries, err := os.ReadDir(filepath.Join(n.Dir, "volumes"))
	if err != nil || len(entries) > 0 {
		t.Errorf("records left: %v %v", entries, err)
	}
}
