package btrfspool_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }

func open(t *testing.T, dir, instance string, size int64) *btrfspool.Pool {
	t.Helper()
	p, err := btrfspool.Open(t.Context(), btrfspool.Config{Dir: dir, Instance: instance, Most: size})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func dir(t *testing.T) string {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "mkfs.btrfs", "btrfs-progs")
	return testenv.ShortDir(t)
}

func limit(t *testing.T, p *btrfspool.Pool) int64 {
	t.Helper()
	capacity, err := p.Capacity(space.Promised{Each: func() []space.Promise { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return capacity.Limit
}

func closePool(t *testing.T, p *btrfspool.Pool, unmount bool) {
	t.Helper()
	if err := p.Close(unmount); err != nil {
		t.Error(err)
	}
}

// plainSpec is for a volume of the default kind, imageSpec for one with a file system of its own.
func plainSpec(id string, size int64) volume.Spec {
	return volume.Spec{
		ID:      id,
		Size:    size,
		Backend: btrfspool.Name,
		Access:  volume.Filesystem,
	}
}

func imageSpec(id string, size int64) volume.Spec {
	s := plainSpec(id, size)
	s.FSType, s.NoCOW = "ext4", true
	return s
}

func mustCreate(t *testing.T, p *btrfspool.Pool, s volume.Spec) volume.Origin {
	t.Helper()
	origin, err := p.Create(s)
	if err != nil {
		t.Fatal(err)
	}
	return origin
}

func TestPoolPromisesNoMoreThanItMayBecome(t *testing.T) {
	d := dir(t)
	for _, most := range []int64{1 << 30, 2 << 30, 1 << 30} {
		p := open(t, d, "most-"+filepath.Base(d), most)
		if got := limit(t, p); got < most*8/10 || got > most {
			t.Errorf("a pool of at most %d bytes promises %d", most, got)
		}

		// As if killed: it stays mounted.
		closePool(t, p, false)
	}
	closePool(t, open(t, d, "most-"+filepath.Base(d), 1<<30), true)
}

func TestInterruptedFormatIsRepeated(t *testing.T) {
	d := dir(t)
	half := filepath.Join(d, "pool.img.new")
	if err := os.WriteFile(half, []byte("half of a file system"), 0o600); err != nil {
		t.Fatal(err)
	}
	closePool(t, open(t, d, "half-"+filepath.Base(d), 1<<30), true)
}

func TestTooSmallPoolIsRefused(t *testing.T) {
	d := dir(t)
	if _, err := btrfspool.Open(t.Context(), btrfspool.Config{
		Dir:      d,
		Instance: "small",
		Most:     100 << 20,
	}); err == nil {
		t.Error("a pool of 100 MiB was made")
	}
}

func TestPoolWithoutASizeMayBecomeMostOfTheDisk(t *testing.T) {
	d := dir(t)
	var disk unix.Statfs_t
	if err := unix.Statfs(d, &disk); err != nil {
		t.Fatal(err)
	}

	p := open(t, d, "most-"+filepath.Base(d), 0)
	free := int64(disk.Bavail) * disk.Bsize
	if got := limit(t, p); got < free*8/10 || got > free {
		t.Errorf("%d bytes of %d are promised", got, free)
	}

	closePool(t, p, true)
}

// On a disk that others mount it is not known after a power loss what was on it before.
func TestVolumeOnABtrfsDiskIsThereBeforeItIsAcknowledged(t *testing.T) {
	d := dir(t)
	disk := open(t, d, "power-"+filepath.Base(d), 1<<30)
	data := filepath.Join(d, "pool", "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}

	p := open(t, data, "none", 0)
	mustCreate(t, p, plainSpec("vol-1", 32<<20))

	img, now := filepath.Join(d, "pool.img"), filepath.Join(d, "now.img")

	// The power fails now.
	out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", img, now).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	closePool(t, p, true)
	closePool(t, disk, true)
	if err := os.Rename(now, img); err != nil {
		t.Fatal(err)
	}

	disk = open(t, d, "power-"+filepath.Base(d), 1<<30)
	if _, err := os.Stat(filepath.Join(data, "pool", "volumes", "vol-1")); err != nil {
		t.Error(err)
	}

	closePool(t, disk, true)
}

func TestDirectoryOfABtrfsDisk(t *testing.T) {
	d := dir(t)
	disk := open(t, d, "disk-"+filepath.Base(d), 1<<30)
	data := filepath.Join(d, "pool", "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}

	p := open(t, data, "none", 0)
	spec := plainSpec("vol-1", 32<<20)

	for range 2 {
		mustCreate(t, p, spec)
	}

	err := os.WriteFile(filepath.Join(data, "pool", "volumes", "vol-1", "f"), make([]byte, 64<<20), 0o600)
	if !errors.Is(err, unix.EDQUOT) {
		t.Errorf("writing 64 MiB to a volume of 32 MiB: %v", err)
	}

	promise := space.Promise{ID: spec.ID, Backend: btrfspool.Name, Bytes: spec.Size}
	capacity, err := p.Capacity(space.Promised{
		Bytes: spec.Size,
		Count: 1,
		Each:  func() []space.Promise { return []space.Promise{promise} },
	})
	if err != nil || capacity.Limit < 400<<20 || capacity.Unwritten > spec.Size/2 {
		t.Errorf("capacity %+v, %v", capacity, err)
	}
	if err := errors.Join(p.Destroy(spec.ID), p.Commit()); err != nil {
		t.Error(err)
	}

	closePool(t, p, true)
	closePool(t, disk, true)
}

func TestTornNoteCountsAsNone(t *testing.T) {
	d := dir(t)
	closePool(t, open(t, d, "torn-"+filepath.Base(d), 1<<30), true)
	if err := os.WriteFile(filepath.Join(d, "pool.settled"), []byte("12\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := open(t, d, "torn-"+filepath.Base(d), 1<<30)
	if err := p.Err(); err != nil {
		t.Error(err)
	}
	closePool(t, p, true)
}

// What is mounted can be used although somebody has removed the file; the next mount finds it missing.
func TestFileThatWasRemovedInUseIsMissedAtTheNextMount(t *testing.T) {
	d := dir(t)
	p := open(t, d, "gone-"+filepath.Base(d), 1<<30)
	if err := os.Remove(filepath.Join(d, "pool.img")); err != nil {
		t.Fatal(err)
	}

	closePool(t, p, false)
	p = open(t, d, "gone-"+filepath.Base(d), 1<<30)
	if err := p.Err(); err != nil {
		t.Errorf("while it is mounted: %v", err)
	}

	closePool(t, p, true)
	p = open(t, d, "gone-"+filepath.Base(d), 1<<30)
	if err := p.Err(); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("afterwards: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(d, "pool.img")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another pool was made: %v", err)
	}

	closePool(t, p, true)
}

// A file that somebody has put in the place of the pool's is not made larger or smaller for it.
func TestFileThatIsNotMountedIsLeftAlone(t *testing.T) {
	d := dir(t)
	p := open(t, d, "other-"+filepath.Base(d), 2<<30)
	img, aside := filepath.Join(d, "pool.img"), filepath.Join(d, "aside")
	was, err := os.Stat(img)
	if err != nil {
		t.Fatal(err)
	}

	if err := errors.Join(os.Rename(img, aside), os.WriteFile(img, []byte("other"), 0o600)); err != nil {
		t.Fatal(err)
	}

	for range 2 {
		if err := p.Check(false); err == nil || !strings.Contains(err.Error(), "another file") {
			t.Errorf("the pool is kept: %v", err)
		}
		if _, err := p.Create(reservedSpec("vol-1", 800<<20)); err == nil {
			t.Error("a reserved volume was made")
		}

		// As if killed.
		closePool(t, p, false)
		p = open(t, d, "other-"+filepath.Base(d), 2<<30)
	}

	if data, err := os.ReadFile(img); err != nil || string(data) != "other" {
		t.Errorf("the other file has %d bytes, %v", len(data), err)
	}
	if now, err := os.Stat(aside); err != nil || now.Size() != was.Size() {
		t.Errorf("the pool's file has %v, %v", now, err)
	}

	if err := os.Rename(aside, img); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(false); err != nil {
		t.Errorf("when it is back: %v", err)
	}

	mustCreate(t, p, reservedSpec("vol-1", 800<<20))
	closePool(t, p, true)
}

func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	var err error
	for range retry.Every(ctx, 50*time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}

	t.Fatalf("%s: %v", what, err)
}
