package btrfspool_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
)

// A pool whose file is missing, because its disk is not mounted, or because all but it was restored, is never
// replaced by an empty one.
func TestMissingPoolIsWaitedFor(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 16 << 20, Backend: "btrfs"})
	w := n.MustCreate(volume.Request{Name: "w", Required: 16 << 20, Backend: "btrfs"})
	n.Write(v, n.Use(v, "pod"))
	n.Leave(v.ID, "pod")
	file := filepath.Join(n.Dir, "pool.img")
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	if report := n.Reboot(); !errors.Is(report.Damaged[v.ID], volume.ErrDamaged) {
		t.Errorf("report %+v", report)
	}

	stage := func() error {
		return n.Stage(t.Context(), v.ID, n.StagePath(v.ID), publish.Use{Access: volume.Filesystem})
	}
	if err := stage(); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("staging: %v", err)
	}
	if err := n.Delete(t.Context(), w.ID); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("deleted without its pool: %v", err)
	}
	if other := n.MustCreate(volume.Request{Name: "other", Required: 16 << 20}); other.Backend != "image" {
		t.Errorf("a new volume is in backend %s", other.Backend)
	}

	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}

	n.Eventually("the volume is back", stage)
	n.CheckRead(v, n.Use(v, "pod"))
	n.Remove(v.ID, "pod")
	n.Remove(volume.ID("other"))
	if err := n.Delete(t.Context(), w.ID); err != nil {
		t.Errorf("deleted with its pool: %v", err)
	}
}

// An administrator who removes the old pool gets a new one. The volumes of the old one are damaged, not
// empty.
func TestVolumesOfAnotherPoolAreDamaged(t *testing.T) {
	n := nodetest.New(t, 1<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 16 << 20, Backend: "btrfs"})
	file := filepath.Join(n.Dir, "pool.img")
	id := filepath.Join(n.Dir, "pool.id")
	if err := errors.Join(os.Rename(file, file+".away"), os.Remove(id)); err != nil {
		t.Fatal(err)
	}
	if report := n.Reboot(); !errors.Is(report.Damaged[v.ID], volume.ErrDamaged) {
		t.Errorf("report %+v", report)
	}

	_, err := n.Create(
		t.Context(),
		volume.Request{
			Name:     "v",
			Required: 16 << 20,
			Backend:  "btrfs",
			Access:   volume.Filesystem,
		},
	)
	if !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("made again: %v", err)
	}

	fresh := n.MustCreate(volume.Request{Name: "fresh", Required: 16 << 20, Backend: "btrfs"})

	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}

	report := n.Reboot()
	if report.Damaged[v.ID] != nil || !errors.Is(report.Damaged[fresh.ID], volume.ErrDamaged) {
		t.Errorf("with the old pool back: %+v", report)
	}

	for _, id := range []string{v.ID, fresh.ID} {
		if err := n.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// The kernel gives up a file system that cannot be written, until it is mounted again.
func TestPoolHealsWhenNobodyUsesIt(t *testing.T) {
	n := nodetest.NewOnDisk(t, 1200<<20, 1<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 512 << 20, Backend: "btrfs"})
	target := n.Use(v, "pod")
	n.Write(v, target)
	if err := n.Sync(); err != nil {
		t.Fatal(err)
	}

	trouble := make(chan error, 16)
	n.OnTrouble(func(_ string, err error) { trouble <- err })

	pool := filepath.Join(n.Dir, "pool")
	if err := unix.Mount("", pool, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := <-trouble; !errors.Is(err, volume.ErrUnavailable) {
		t.Errorf("trouble %v", err)
	}

	other := volume.Request{
		Name:     "other",
		Required: 16 << 20,
		Backend:  "btrfs",
		Access:   volume.Filesystem,
	}
	if _, err := n.Create(t.Context(), other); !errors.Is(err, volume.ErrUnavailable) {
		t.Errorf("a new volume: %v", err)
	}

	n.CheckRead(v, target)
	if seen, err := n.Get(v.ID); err != nil || seen.Trouble == nil {
		t.Errorf("volume %+v, %v; want it to name the trouble", seen, err)
	}

	n.Leave(v.ID, "pod")
	n.Eventually("the volume can be used again", func() error {
		return n.Stage(t.Context(), v.ID, n.StagePath(v.ID), publish.Use{Access: volume.Filesystem})
	})
	n.CheckRead(v, n.Use(v, "pod"))
	n.Write(v, target)
	n.Remove(v.ID, "pod")
}

// dig takes from a file the blocks that were never written to.
func dig(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}

	for at := int64(0); at < st.Size(); {
		hole, err := unix.Seek(int(f.Fd()), at, unix.SEEK_HOLE)
		if err != nil {
			t.Fatal(err)
		}
		end, err := unix.Seek(int(f.Fd()), hole, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			end = st.Size()
		} else if err != nil {
			t.Fatal(err)
		}

		const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		if end > hole {
			err = unix.Fallocate(int(f.Fd()), mode, hole, end-hole)
		}
		if at = end; err != nil && !errors.Is(err, unix.ENXIO) {
			t.Fatal(err)
		}
	}
}

// writeUntilItFails changes a directory, and has each change written, until the kernel gives up.
func writeUntilItFails(t *testing.T, dir string) {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()

	for n := range 10000 {
		err := os.WriteFile(filepath.Join(dir, strconv.Itoa(n)), make([]byte, 4096), 0o600)
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EIO) {
			return
		}
		_ = unix.Syncfs(int(root.Fd()))
	}
	t.Fatal("the kernel has not given up")
}

// What the kernel has made read-only is read by a driver that starts then, as it is.
func TestPoolThatTheKernelGaveUpIsTakenOver(t *testing.T) {
	n := nodetest.NewOnDisk(t, 1536<<20, 1<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 512 << 20, Backend: "btrfs"})
	target := n.Use(v, "pod")
	n.Write(v, target)
	if err := n.Sync(); err != nil {
		t.Fatal(err)
	}

	n.Kill()
	dig(t, filepath.Join(n.Dir, "pool.img"))
	makeRoom := n.FillDisk()
	writeUntilItFails(t, target)

	if report := n.Start(); report.Recovered+len(report.Damaged) != 1 {
		t.Errorf("report %+v", report)
	}
	n.Eventually("the volume names the trouble", func() error {
		seen, err := n.Get(v.ID)
		if err == nil && seen.Trouble == nil {
			err = errors.New("it names none")
		}
		return err
	})

	makeRoom()
	n.Leave(v.ID, "pod")
	n.Eventually("the volume can be used again", func() error {
		return n.Stage(t.Context(), v.ID, n.StagePath(v.ID), publish.Use{Access: volume.Filesystem})
	})
	n.CheckRead(v, n.Use(v, "pod"))
	n.Write(v, target)
	n.Remove(v.ID, "pod")
}

func TestRebootWithAFullDiskFindsAllVolumes(t *testing.T) {
	n := nodetest.NewOnDisk(t, 1536<<20, 1<<30)
	var volumes []volume.Volume
	for _, r := range nodetest.Requests(32 << 20) {
		v := n.MustCreate(r)
		n.Write(v, n.Use(v, "pod"))
		n.Leave(v.ID, "pod")
		volumes = append(volumes, v)
	}

	if err := n.Sync(); err != nil {
		t.Fatal(err)
	}

	makeRoom := n.FillDisk()
	if report := n.Reboot(); report.Recovered != len(volumes) || len(report.Damaged) > 0 {
		t.Errorf("report %+v", report)
	}

	for _, v := range volumes {
		n.CheckRead(v, n.Use(v, "pod"))
	}

	makeRoom()
	for _, v := range volumes {
		n.Remove(v.ID, "pod")
	}
}
