package volume_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestSizesHold(t *testing.T) {
	n := newNode(t, 1<<30)
	for _, c := range []struct {
		backend, fs string
		size        int64
	}{{"btrfs", "", 64 << 20}, {"image", "ext4", 64 << 20}, {"image", "xfs", 320 << 20}} {
		t.Run(c.backend+" "+c.fs, func(t *testing.T) {
			v := n.create(volume.Request{
				Name:     "size-" + c.backend + c.fs,
				Required: c.size,
				Backend:  c.backend,
				FSType:   c.fs,
			})

			target := n.publish(v, "pod")
			written := fill(t, target, 2*c.size)
			if written > c.size*101/100 {
				t.Errorf("a volume of %d bytes took %d", c.size, written)
			}

			// what file systems of this size leave for data
			least := c.size * 70 / 100
			if c.backend == "btrfs" {
				least = c.size
			}
			if written < least {
				t.Errorf("a volume of %d bytes took only %d", c.size, written)
			}

			_, usage, err := n.Stats(t.Context(), v.ID, target)
			if err != nil || usage.Used < written*95/100 || usage.Total > c.size ||
				usage.Available > c.size/50 {
				t.Errorf("usage %+v, %v; written %d", usage, err, written)
			}

			n.remove(v.ID, "pod")
		})
	}
}

// Every volume can be filled to its size, although together they are all that the pool would promise.
func TestPromisesAreKept(t *testing.T) {
	n := newNode(t, 1<<30)
	const size = 100 << 20
	var volumes []volume.Volume
	for i := 0; ; i++ {
		v, err := n.Create(t.Context(), volume.Request{
			Name:     fmt.Sprintf("v%d", i),
			Required: size,
			Backend:  "btrfs",
			Access:   volume.Filesystem,
		})
		if errors.Is(err, volume.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}

		volumes = append(volumes, v)
	}

	if len(volumes) < 7 {
		t.Errorf("a pool of 1 GiB promised only %d volumes of 100 MiB", len(volumes))
	}

	if free, err := n.Available(volume.Request{
		Backend: "btrfs",
		Access:  volume.Filesystem,
	}); err != nil || free >= size {
		t.Errorf("%d bytes are still offered, %v", free, err)
	}

	for i, v := range volumes {
		target := n.publish(v, "pod")

		// many small files cost the most metadata
		if i == 0 {
			smallFiles(t, target, 10_000)
			continue
		}

		if got := fill(t, target, size); got < size {
			t.Errorf("volume %d of %d could be filled with %d bytes only", i, len(volumes), got)
		}
	}

	for _, v := range volumes {
		n.remove(v.ID, "pod")
	}

	if free, err := n.Available(volume.Request{
		Backend: "btrfs",
		Access:  volume.Filesystem,
	}); err != nil || free < int64(len(volumes))*size {
		t.Errorf("after all volumes were deleted %d bytes are offered, %v", free, err)
	}
}

func smallFiles(t *testing.T, dir string, count int) {
	t.Helper()
	for i := range count {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 3000), 0o600); err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
	}
}

func TestVolumesGrowInUse(t *testing.T) {
	n := newNode(t, 2<<30)
	for _, r := range []volume.Request{
		{Name: "b", Backend: "btrfs", Access: volume.Filesystem},
		{Name: "x", Backend: "image", FSType: "xfs", Access: volume.Filesystem},
		{Name: "raw", Backend: "image", Access: volume.Block},
	} {
		r.Required = 320 << 20
		v := n.create(r)
		target := n.publish(v, "pod")
		grown, nodeStep, err := n.Grow(t.Context(), v.ID, 640<<20, 0)
		if err != nil || grown.Size != 640<<20 {
			t.Fatalf("%s: %v, %v", r.Name, grown, err)
		}

		for range 2 {
			if _, err := n.GrowAttached(t.Context(), v.ID); nodeStep && err != nil {
				t.Fatalf("%s: %v", r.Name, err)
			}
		}

		_, usage, err := n.Stats(t.Context(), v.ID, target)
		if err != nil || usage.Total < 560<<20 {
			t.Errorf("%s: usage %+v, %v", r.Name, usage, err)
		}

		if r.Access == volume.Filesystem {
			if got := fill(t, target, 500<<20); got < 500<<20 {
				t.Errorf("%s: only %d bytes fit after growth", r.Name, got)
			}
		}

		if again, _, err := n.Grow(t.Context(), v.ID, 10<<20, 0); err != nil || again.Size != 640<<20 {
			t.Errorf("%s: growing to less gave %v, %v", r.Name, again, err)
		}
		if _, _, err := n.Grow(t.Context(), v.ID, 1<<50, 0); !errors.Is(err, volume.ErrSize) {
			t.Errorf("%s: growing to 1 PiB gave %v", r.Name, err)
		}

		n.remove(v.ID, "pod")
	}
}

// The kernel refuses to grow an ext4 in use to whom it did not give CAP_SYS_RESOURCE. Then it grows when it
// is staged the next time.
func TestExt4GrowsAtTheLatestWhenItIsStagedAgain(t *testing.T) {
	n := newNode(t, 1<<30)
	testenv.Program(t, "resize2fs", "e2fsprogs")
	v := n.create(volume.Request{
		Name:     "v",
		Required: 64 << 20,
		Backend:  "image",
		FSType:   "ext4",
	})

	target := n.publish(v, "pod")
	write(t, v, target)
	if _, _, err := n.Grow(t.Context(), v.ID, 256<<20, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := n.GrowAttached(t.Context(), v.ID); err != nil && !errors.Is(err, volume.ErrInUse) {
		t.Errorf("growing in use: %v", err)
	}

	n.leave(v.ID, "pod")
	target = n.publish(v, "pod")
	if _, err := n.GrowAttached(t.Context(), v.ID); err != nil {
		t.Errorf("growing after it was staged again: %v", err)
	}

	read(t, v, target)
	if _, usage, err := n.Stats(t.Context(), v.ID, target); err != nil || usage.Total < 220<<20 {
		t.Errorf("usage %+v, %v", usage, err)
	}

	n.remove(v.ID, "pod")
}
