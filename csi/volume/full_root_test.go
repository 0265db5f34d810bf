package volume_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/volume"
	imount "github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
)

// newNodeOn returns a node whose data directory is a disk of its own.
func newNodeOn(t *testing.T, disk, poolSize int64) *node {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "mkfs.btrfs", "btrfs-progs")
	testenv.Program(t, "mkfs.xfs", "xfsprogs")
	outside := testenv.ShortDir(t)
	file, root := filepath.Join(outside, "disk"), filepath.Join(outside, "d")
	n := &node{
		t:        t,
		dir:      filepath.Join(root, "data"),
		state:    filepath.Join(outside, "run"),
		kubelet:  filepath.Join(outside, "kubelet"),
		poolSize: poolSize,
	}
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, disk), os.Mkdir(root, 0o700),
		os.Mkdir(n.kubelet, 0o700)); err != nil {
		t.Fatal(err)
	}

	for _, cmd := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", file},
		{"mount", "-o", "loop", file, root},
	} {
		if out, err := exec.CommandContext(t.Context(), cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", cmd, err, out)
		}
	}

	if err := os.Mkdir(n.dir, 0o700); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		n.kill()
		if err := imount.UnmountBelow(outside); err != nil {
			t.Error(err)
		}

		n.noDevices()
	})

	n.start()
	return n
}

// fillDisk writes to the disk below until not one block is left; the returned function makes room again.
func (n *node) fillDisk() (makeRoom func()) {
	n.t.Helper()
	name := filepath.Join(n.dir, "somebody-elses")
	f, err := os.Create(name)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()

	end := int64(0)
	for _, size := range []int64{64 << 20, 1 << 20, 4096} {
		for err = nil; err == nil; end += size {
			err = unix.Fallocate(int(f.Fd()), 0, end, size)
		}

		end -= size
	}

	if !errors.Is(err, unix.ENOSPC) {
		n.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		n.t.Fatal(err)
	}

	return func() {
		n.t.Helper()
		if err := os.Remove(name); err != nil {
			n.t.Fatal(err)
		}
	}
}

// eventually waits for what the service does by itself.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()

	deadline := time.After(time.Minute)
	for {
		err := ok()
		if err == nil {
			return
		}

		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func TestRebootWithAFullDiskFindsAllVolumes(t *testing.T) {
	n := newNodeOn(t, 1536<<20, 1<<30)
	var volumes []volume.Volume
	for _, r := range all(32 << 20) {
		v := n.create(r)
		write(t, v, n.publish(v, "pod"))
		n.leave(v.ID, "pod")
		volumes = append(volumes, v)
	}

	if err := btrfsSync(n); err != nil {
		t.Fatal(err)
	}

	makeRoom := n.fillDisk()
	if report := n.reboot(); report.Recovered != len(volumes) || len(report.Damaged) > 0 {
		t.Errorf("report %+v", report)
	}

	for _, v := range volumes {
		read(t, v, n.publish(v, "pod"))
	}

	makeRoom()
	for _, v := range volumes {
		n.remove(v.ID, "pod")
	}
}

// The file of the pool is sparse. The kernel gives up a file system that cannot write what it must, until it
// is mounted anew.
func TestPoolHealsWhenThereIsRoomAndNobodyUsesIt(t *testing.T) {
	n := newNodeOn(t, 1200<<20, 1<<30)
	v := n.create(volume.Request{Name: "v", Required: 512 << 20, Backend: "btrfs"})
	target := n.publish(v, "pod")
	write(t, v, target)
	if err := btrfsSync(n); err != nil {
		t.Fatal(err)
	}

	trouble := make(chan error, 16)
	n.OnTrouble(func(_ string, err error) { trouble <- err })

	makeRoom := n.fillDisk()
	eventually(t, "the pool is given up", func() error {
		err := os.WriteFile(filepath.Join(target, "more"), make([]byte, 64<<20), 0o600)
		if err == nil {
			err = btrfsSync(n)
		}
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EIO) {
			return nil
		}

		return errors.Join(errors.New("written"), err)
	})
	if err := <-trouble; !errors.Is(err, volume.ErrUnavailable) {
		t.Errorf("trouble %v", err)
	}

	other := volume.Request{
		Name:     "other",
		Required: 16 << 20,
		Backend:  "btrfs",
		Access:   volume.Filesystem,
	}
	if _, err := n.Create(t.Context(), other); !errors.Is(err, volume.ErrUnavailable) &&
		!errors.Is(err, volume.ErrFull) {
		t.Errorf("a new volume: %v", err)
	}

	read(t, v, target)
	if seen, err := n.Get(v.ID); err != nil || seen.Trouble == "" {
		t.Errorf("volume %+v, %v; want it to tell of the trouble", seen, err)
	}

	makeRoom()
	n.leave(v.ID, "pod")
	eventually(t, "the volume can be used again", func() error {
		return n.Stage(t.Context(), v.ID, n.stagePath(v.ID), volume.Use{Access: volume.Filesystem})
	})
	read(t, v, n.publish(v, "pod"))
	write(t, v, target)
	n.remove(v.ID, "pod")
}

func TestDeleteNeedsNoRoom(t *testing.T) {
	for _, backend := range []string{"image", "btrfs"} {
		t.Run(backend, func(t *testing.T) {
			n := newNodeOn(t, 768<<20, 512<<20)
			v := n.create(
				volume.Request{
					Name:     "v",
					Required: 128 << 20,
					Backend:  backend,
					FSType:   map[string]string{"image": "ext4"}[backend],
				},
			)

			fill(t, n.publish(v, "pod"), 100<<20)
			n.leave(v.ID, "pod")
			other := n.create(volume.Request{Name: "other", Required: 16 << 20, Backend: "btrfs"})
			write(t, other, n.publish(other, "pod"))
			if err := btrfsSync(n); err != nil {
				t.Fatal(err)
			}

			n.fillDisk()
			if err := n.Delete(t.Context(), v.ID); err != nil {
				t.Fatal(err)
			}

			eventually(t, "there is room", func() error {
				var disk unix.Statfs_t
				if err := unix.Statfs(n.dir, &disk); err != nil {
					return err
				}
				if free := int64(disk.Bavail) * disk.Bsize; free < 50<<20 {
					return fmt.Errorf("%d bytes are free", free)
				}

				return nil
			})

			write(t, other, n.target(other.ID, "pod"))
			read(t, other, n.target(other.ID, "pod"))
			n.remove(other.ID, "pod")
		})
	}
}

// An image has all its blocks from the start.
func TestImageKeepsItsPromiseOnAFullDisk(t *testing.T) {
	n := newNodeOn(t, 1<<30, 512<<20)
	v := n.create(volume.Request{
		Name:     "v",
		Required: 128 << 20,
		Backend:  "image",
		FSType:   "ext4",
	})

	target := n.publish(v, "pod")
	defer n.fillDisk()()

	if written := fill(t, target, 256<<20); written < 100<<20 {
		t.Errorf("only %d bytes of 128 MiB could be written", written)
	}

	f, err := os.Open(filepath.Join(target, "filled"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Errorf("synced: %v", err)
	}

	n.remove(v.ID, "pod")
}

// A database writes over what it has written, again and again.
func TestOverwritingInPlaceNeverRunsOutOfSpace(t *testing.T) {
	n := newNode(t, 1<<30)
	for _, r := range []volume.Request{{Name: "default"}, {Name: "image", Backend: "image"}} {
		r.Required = 64 << 20
		v := n.create(r)
		f, err := os.Create(filepath.Join(n.publish(v, "pod"), "table"))
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
		n.remove(v.ID, "pod")
	}
}
