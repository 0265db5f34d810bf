package quotadir_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/mountinfo"
	"github.com/trivet-node/trivet/internal/testenv"
)

// device is what is mounted as the disk, and the type of its file system.
func (n *node) device() (path, kind string) {
	n.t.Helper()
	table, err := mountinfo.Self()
	n.must(err)
	for _, m := range table {
		if m.Point == n.disk {
			return m.Source, m.FSType
		}
	}
	n.t.Fatalf("nothing is mounted on %s", n.disk)
	return "", ""
}

// remount mounts the disk of a driver that does not run with other options.
func (n *node) remount(options string) {
	n.t.Helper()
	path, kind := n.device()
	f, err := os.Open(path)
	n.must(err)
	defer f.Close()
	n.must(unix.Unmount(n.disk, 0), unix.Mount(path, n.disk, kind, 0, options))
}

func TestVolumesWaitForADiskWithQuotas(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		v, other := n.create("v", 8*mib), n.create("other", 8*mib)
		dir, _ := n.path(v)
		n.must(os.WriteFile(dir+"/file", []byte("content"), 0o600))
		n.kill()
		n.remount("")
		n.start()

		err := n.report.Damaged[v.ID]
		if !errors.Is(err, volume.ErrUnavailable) || !strings.Contains(err.Error(), "prjquota") {
			t.Errorf("the disk has no quotas: %v", err)
		}
		if err := n.report.Trouble["quota"]; err == nil {
			t.Error("nothing is said of the backend")
		}
		request := volume.Request{Name: "new", Required: mib, Access: volume.Filesystem}
		if _, err := n.Create(t.Context(), request); !errors.Is(err, volume.ErrUnavailable) {
			t.Errorf("a new volume: %v", err)
		}
		n.must(n.Delete(t.Context(), other.ID))

		n.kill()
		n.remount("prjquota")
		n.start()
		if len(n.report.Damaged) > 0 {
			t.Errorf("%v", n.report.Damaged)
		}
		path := n.use(v)
		if data, err := os.ReadFile(path + "/file"); string(data) != "content" {
			t.Errorf("it holds %q, %v", data, err)
		}
		n.remove(v)
		n.awaitNothing()
	})
}

// The first volume makes the directories, and nothing makes them again in place of its own.
func TestDirectoriesAreMadeWithTheFirstVolume(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		quota := filepath.Join(n.dir, "quota")
		n.kill()
		n.start()
		if _, err := os.Lstat(quota); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("two starts without a volume: %v", err)
		}
		if ills := n.report.Trouble; len(ills) > 0 {
			t.Errorf("trouble: %v", ills)
		}
		v := n.create("v", 8*mib)
		n.path(v)

		n.kill()
		n.must(os.Rename(quota, quota+"-away"))
		n.start()
		if _, err := os.Lstat(quota); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a start without its directories: %v", err)
		}
		if err := n.report.Damaged[v.ID]; !errors.Is(err, volume.ErrUnavailable) {
			t.Errorf("its volume: %v", err)
		}
		n.must(os.Rename(quota+"-away", quota))
		n.eventually("the volume is there again", func() error {
			_, unlock, err := n.Acquire(t.Context(), v.ID)
			if err == nil {
				unlock()
			}
			return err
		})
		n.must(n.Delete(t.Context(), v.ID))
		n.awaitNothing()
	})
}

// A copy of the file behind the device, which has what was written to that, is what a power loss leaves.
func TestPowerLossRightAfterCreateAndDelete(t *testing.T) {
	onEach(t, func(t *testing.T, n *node) {
		gone := n.create("gone", 8*mib)
		n.must(n.Delete(t.Context(), gone.ID))
		v := n.create("v", 8*mib)
		_, project := n.path(v)

		path, kind := n.device()
		file, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "loop/backing_file"))
		n.must(err)
		image := filepath.Join(testenv.ShortDir(t), "image")
		copyOf(t, strings.TrimSpace(string(file)), image)
		after := &node{t: t, disk: testenv.ShortDir(t)}
		after.dir = filepath.Join(after.disk, filepath.Base(n.dir))
		options := "loop,prjquota"
		if kind == "xfs" {
			// Its own file system is mounted beside it.
			options += ",nouuid"
		}
		mount := exec.CommandContext(t.Context(), "mount", "-t", kind, "-o", options, image, after.disk)
		if out, err := mount.CombinedOutput(); err != nil {
			t.Fatalf("mount: %v: %s", err, out)
		}
		t.Cleanup(func() { after.must(unix.Unmount(after.disk, 0)) })

		after.start()
		defer after.kill()
		if len(after.report.Damaged)+len(after.report.Strays) > 0 {
			t.Errorf("%+v", after.report)
		}
		if _, is := after.path(v); is != project {
			t.Errorf("its project was %d, is %d", project, is)
		}
		if used, limits := after.look(project); used.Inodes != 1 || limits.Bytes != 8*mib {
			t.Errorf("used %+v, limits %+v", used, limits)
		}
		n.must(n.Delete(t.Context(), v.ID))
		after.must(after.Delete(t.Context(), v.ID), after.Delete(t.Context(), gone.ID))
		after.awaitNothing()
	})
}

// copyOf copies a file, with holes.
func copyOf(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()

	chunk, zero, at := make([]byte, 1<<20), make([]byte, 1<<20), int64(0)
	for {
		count, err := in.Read(chunk)
		if count > 0 && string(chunk[:count]) != string(zero[:count]) {
			if _, err := out.WriteAt(chunk[:count], at); err != nil {
				t.Fatal(err)
			}
		}
		at += int64(count)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Truncate(at); err != nil {
		t.Fatal(err)
	}
}
