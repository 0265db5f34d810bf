package quotadir_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// node is a driver whose data directory is on a disk of its own that has project quotas.
type node struct {
	*volume.Store
	*publish.Publisher

	t      testing.TB
	disk   string
	dir    string // of the data
	dirs   *quotadir.Dirs
	report volume.Report
	stop   func()
}

// onEach runs a test on each file system that has project quotas.
func onEach(t *testing.T, test func(t *testing.T, n *node)) {
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			n := &node{t: t, disk: testenv.ProjectQuotas(t, kind)}
			n.dir = filepath.Join(n.disk, "data")
			n.start()
			t.Cleanup(func() {
				n.kill()
				n.must(mount.UnmountBelow(n.dir))
			})
			test(t, n)
		})
	}
}

func (n *node) must(errs ...error) {
	n.t.Helper()
	if err := errors.Join(errs...); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) start() {
	n.t.Helper()
	n.must(os.MkdirAll(filepath.Join(n.dir, "kubelet"), 0o700))
	records, err := volume.Load(filepath.Join(n.dir, "volumes"))
	n.must(err)
	held := records.HasMade(quotadir.Name)
	n.dirs, err = quotadir.Open(quotadir.Config{Dir: n.dir, Instance: "test", Held: held})
	n.must(err)
	n.Store, n.report, err = volume.Open(volume.Config{
		Dir:      filepath.Join(n.dir, "volumes"),
		Records:  records,
		Disk:     space.FileSystem{Dir: n.dir},
		Backends: map[string]volume.Backend{quotadir.Name: n.dirs},
		Default:  []string{quotadir.Name},
	})
	n.must(err)
	targets, err := target.OpenRoot(filepath.Join(n.dir, "kubelet"))
	n.must(err)
	n.Publisher, _, err = publish.Open(publish.Config{
		Dir:      filepath.Join(n.dir, "staged"),
		Volumes:  n.Store,
		Targets:  targets,
		Backends: map[string]publish.Backend{quotadir.Name: n.dirs},
	})
	n.must(err)

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx)
	}()
	n.stop = func() {
		cancel()
		<-done
		targets.Close()
	}
}

// kill ends the driver.
func (n *node) kill() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

func (n *node) create(name string, size int64) volume.Volume {
	n.t.Helper()
	v, err := n.Create(n.t.Context(), volume.Request{Name: name, Required: size, Access: volume.Filesystem})
	n.must(err)
	return v
}

// use stages a volume and publishes it for a pod, and returns the target.
func (n *node) use(v volume.Volume) string {
	n.t.Helper()
	u, path := publish.Use{Access: v.Access}, filepath.Join(n.dir, "kubelet", v.ID, "mount")
	n.must(n.Stage(n.t.Context(), v.ID, filepath.Join(n.dir, "kubelet", v.ID, "stage"), u))
	n.must(n.Publish(n.t.Context(), v.ID, path, u))
	return path
}

func (n *node) remove(v volume.Volume) {
	n.t.Helper()
	n.must(n.Unpublish(n.t.Context(), v.ID, filepath.Join(n.dir, "kubelet", v.ID, "mount")))
	n.must(n.Unstage(n.t.Context(), v.ID, filepath.Join(n.dir, "kubelet", v.ID, "stage")))
	n.must(n.Delete(n.t.Context(), v.ID))
}

// names are those of the directories of volumes, or of what is left of them.
func (n *node) names(trash bool) []string {
	n.t.Helper()
	volumes, left := quotadir.Paths(n.dir)
	if trash {
		volumes = left
	}
	entries, err := os.ReadDir(volumes)
	n.must(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// path is the directory of a volume, and project what its name says.
func (n *node) path(v volume.Volume) (path string, project uint32) {
	n.t.Helper()
	volumes, _ := quotadir.Paths(n.dir)
	for _, name := range n.names(false) {
		if id, project, ok := quotadir.Parse(name); ok && id == v.ID {
			return filepath.Join(volumes, name), project
		}
	}
	n.t.Fatalf("volume %s has no directory", v.ID)
	return "", 0
}

func (n *node) eventually(what string, ok func() error) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 2*time.Minute)
	defer cancel()
	var err error
	for range retry.Every(ctx, 50*time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	n.t.Errorf("%s: %v", what, err)
}

// awaitNothing waits until nothing is left of any volume.
func (n *node) awaitNothing() {
	n.t.Helper()
	n.eventually("nothing is left", func() error {
		if left := append(n.names(false), n.names(true)...); len(left) > 0 {
			return errors.New("left: " + strings.Join(left, " "))
		}
		return nil
	})
}

// limitsOf are those of a project.
func (n *node) look(project uint32) (projectquota.Usage, projectquota.Limits) {
	n.t.Helper()
	f, err := os.Open(n.dir)
	n.must(err)
	defer f.Close()
	used, limits, err := projectquota.Look(f, project)
	n.must(err)
	return used, limits
}

// asPod runs a function as a pod without CAP_SYS_RESOURCE does: ext4 lets who has it go beyond quotas.
func asPod(t *testing.T, do func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		// The thread ends with the goroutine.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		if err == nil {
			data[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
			err = unix.Capset(&header, &data[0])
		}
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// fill writes to a file of a volume until no more fits, and returns how many bytes did.
func fill(t *testing.T, path string) (written int64) {
	t.Helper()
	asPod(t, func() {
		f, err := os.Create(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		chunk := make([]byte, 64<<10)
		for err == nil {
			var count int
			count, err = f.Write(chunk)
			written += int64(count)
		}
		if !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
			t.Error(err)
		}
		if err := f.Sync(); err != nil {
			t.Error(err)
		}
	})
	return written
}
