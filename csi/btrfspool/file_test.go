package btrfspool

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

// superblock writes a file with the superblock of a btrfs in that generation.
func superblock(t *testing.T, generation uint64) string {
	t.Helper()
	image := make([]byte, 64<<10+4096)
	copy(image[64<<10+64:], "_BHRfS_M")
	binary.LittleEndian.PutUint64(image[64<<10+72:], generation)
	path := filepath.Join(t.TempDir(), "pool.img")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBaselineIsKeptUntilAllVolumesAreRecovered(t *testing.T) {
	b := baseline{dir: t.TempDir()}
	first, second := superblock(t, 41), superblock(t, 57)
	for _, image := range []string{first, second} {
		// The second mount follows a process that was killed before it had recovered the volumes.
		if got, err := b.beforeMount(image); got != 41 || err != nil {
			t.Errorf("baseline %d, %v; want 41", got, err)
		}
	}

	for range 2 {
		if err := b.clear(); err != nil {
			t.Fatal(err)
		}
	}

	if got, err := b.beforeMount(second); got != 57 || err != nil {
		t.Errorf("after the recovery: baseline %d, %v; want 57", got, err)
	}
}

func TestBaselineNeverNeedsAnotherBlock(t *testing.T) {
	b := baseline{dir: t.TempDir()}
	for _, generation := range []uint64{1, math.MaxUint64 - 1, 7, recovered} {
		if err := b.write(generation); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(b.path()); err != nil || st.Size() != 21 {
			t.Errorf("%d takes %d bytes, %v", generation, st.Size(), err)
		}

		got, found, err := b.read()
		if err != nil || found != (generation != recovered) || found && got != generation {
			t.Errorf("%d was read as %d, %t, %v", generation, got, found, err)
		}
	}
}

func TestTornBaselineCountsAsNone(t *testing.T) {
	for _, text := range []string{"", "12\x00\x00", "x", "-1", strings.Repeat("9", 40)} {
		b := baseline{dir: t.TempDir()}
		if err := os.WriteFile(b.path(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := b.beforeMount(superblock(t, 5)); got != 5 || err != nil {
			t.Errorf("%q: baseline %d, %v; want 5", text, got, err)
		}
	}
}

func TestGenerationIsReadOfABtrfsOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, size := range []int64{0, 1 << 20} {
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
		if got, err := generationOf(path); err == nil {
			t.Errorf("a file of %d zeros has generation %d", size, got)
		}
	}
}

func newFile(t *testing.T, size int64) *file {
	t.Helper()
	return &file{dir: t.TempDir(), instance: "test", most: size}
}

func TestMissingPoolIsNotReplaced(t *testing.T) {
	f := newFile(t, minSize)
	if f.everExisted() {
		t.Error("there was a pool in an empty directory")
	}
	if err := f.identify("uuid-1"); err != nil {
		t.Fatal(err)
	}
	err := f.create(t.Context())
	if !f.everExisted() || !errors.Is(err, volume.ErrDamaged) || !strings.Contains(err.Error(), "uuid-1") {
		t.Errorf("another pool is made: %v", err)
	}
}

func TestPoolThatIsThereIsKept(t *testing.T) {
	f := newFile(t, minSize)
	if err := os.WriteFile(f.path(), []byte("pool"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.create(t.Context()); err != nil {
		t.Errorf("error %v", err)
	}
	if data, err := os.ReadFile(f.path()); err != nil || string(data) != "pool" {
		t.Errorf("the file holds %q, %v", data, err)
	}
}

func TestInitialSize(t *testing.T) {
	if size, err := newFile(t, minSize-1).initialSize(); err == nil {
		t.Errorf("a pool that is too small: %d", size)
	}

	f := newFile(t, 0)
	if freeOn(f.dir) < 8<<30 {
		testenv.Skip(t, "the disk has only %d bytes free", freeOn(f.dir))
	}
	for most, want := range map[int64]int64{
		0:        minHeadroom + minSize/2,
		minSize:  minSize,
		1 << 30:  (1<<30/3 + minSize/2) / sizeStep * sizeStep,
		64 << 30: minHeadroom + minSize/2,
	} {
		if size, err := newFile(t, most).initialSize(); size != want || err != nil {
			t.Errorf("of at most %d bytes: %d, %v; want %d", most, size, err, want)
		}
	}

	f.reserve = freeOn(f.dir)
	if _, err := f.initialSize(); !errors.Is(err, volume.ErrFull) {
		t.Errorf("on a disk without room: %v", err)
	}
}

// A quota group is charged for the volume's metadata, too.
func TestLimitIsLittleMoreThanTheSize(t *testing.T) {
	for _, size := range []int64{1 << 20, 1 << 30, 1 << 40} {
		if more := limitOf(size) - size; more <= 0 || size > 100<<20 && more > size/100 {
			t.Errorf("a volume of %d bytes may hold %d more", size, more)
		}
	}
}
