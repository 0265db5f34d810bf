package volume_test

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

	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/mount"
	"github.com/trivet-node/trivet/csi/pool"
	"github.com/trivet-node/trivet/csi/volume"
	imount "github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
)

// node is a directory with volumes whose driver can be stopped, killed and rebooted.
type node struct {
	*volume.Service
	t        *testing.T
	dir      string
	poolSize int64
	most     int64  // of the volumes together
	state    string // directory of what dies with the boot
	kubelet  string // directory of stages and targets
	pool     *pool.Pool
	targets  *mount.Root
	stop     func()
}

func newNode(t *testing.T, poolSize int64) *node {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "mkfs.btrfs", "btrfs-progs")
	testenv.Program(t, "mkfs.xfs", "xfsprogs")
	n := &node{t: t, dir: testenv.ShortDir(t), poolSize: poolSize}
	n.state, n.kubelet = filepath.Join(n.dir, "run"), n.dir
	t.Cleanup(n.end)
	n.start()
	return n
}

// end ends the service and takes away what it has mounted.
func (n *node) end() {
	n.kill()
	if err := imount.UnmountBelow(n.dir); err != nil {
		n.t.Error(err)
	}
	n.noDevices()
}

func (n *node) instance() string { return filepath.Base(strings.TrimSuffix(n.dir, "/d/data")) }

func (n *node) start() volume.Report {
	n.t.Helper()
	var err error
	if n.pool, err = pool.Open(n.t.Context(), pool.Config{
		Dir:      n.dir,
		Instance: n.instance(),
		Size:     n.poolSize,
	}); err != nil {
		n.t.Fatal(err)
	}

	im, err := image.Open(image.Config{Dir: n.dir, Instance: n.instance()})
	if err != nil {
		n.t.Fatal(err)
	}
	if n.targets, err = mount.OpenRoot(n.kubelet); err != nil {
		n.t.Fatal(err)
	}

	s, report, err := volume.Open(volume.Config{
		DataDir:  n.dir,
		StateDir: n.state,
		Targets:  n.targets,
		Backends: map[string]volume.Backend{pool.Name: n.pool, image.Name: im},
		Default:  []string{pool.Name, image.Name},
		Most:     n.most,
	})
	if err != nil {
		n.t.Fatal(err)
	}

	n.Service = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	n.stop = func() { cancel(); <-done }
	return report
}

// kill ends the service without giving it time for anything but the background deletions under way.
func (n *node) kill() {
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	n.targets.Close()
	n.pool.Close(false)
}

// restartWithMost starts the driver anew with no more bytes for all its volumes.
func (n *node) restartWithMost(bytes int64) {
	n.t.Helper()
	n.kill()
	n.most = bytes
	n.start()
}

// reboot ends everything that a reboot ends, and starts again.
func (n *node) reboot() volume.Report {
	n.t.Helper()
	n.kill()
	if err := errors.Join(imount.UnmountBelow(n.kubelet), imount.UnmountBelow(n.dir)); err != nil {
		n.t.Fatal(err)
	}

	found, err := loop.Find(loop.TagOf(n.instance(), ""))
	if err != nil {
		n.t.Fatal(err)
	}

	for tag, dev := range found {
		if err := errors.Join(loop.Detach(dev, tag), dev.Close()); err != nil {
			n.t.Fatal(err)
		}
	}

	if err := os.RemoveAll(n.state); err != nil {
		n.t.Fatal(err)
	}

	return n.start()
}

// noDevices fails the test when a loop device of the node is left, and detaches it. The kernel detaches in
// the background.
func (n *node) noDevices() {
	for deadline := time.Now().Add(5 * time.Second); ; {
		found, err := loop.Find(loop.TagOf(n.instance(), ""))
		if err != nil {
			n.t.Error(err)
		}

		late := time.Now().After(deadline)
		for tag, dev := range found {
			if late {
				n.t.Errorf("loop device %s (%s) is left", dev.Name(), tag)
				err = loop.Detach(dev, tag)
			}

			if err := errors.Join(err, dev.Close()); err != nil {
				n.t.Error(err)
			}
		}

		if late || len(found) == 0 {
			return
		}

		runtime.Gosched()
	}
}

func (n *node) create(r volume.Request) volume.Volume {
	n.t.Helper()
	if r.Access == "" {
		r.Access = volume.Filesystem
	}
	v, err := n.Create(n.t.Context(), r)
	if err != nil {
		n.t.Fatal(err)
	}
	return v
}

func (n *node) stagePath(id string) string {
	return filepath.Join(n.kubelet, "stage", id, "globalmount")
}
func (n *node) target(id, pod string) string {
	return filepath.Join(n.kubelet, "pods", pod, "volumes", id, "mount")
}

// publish stages and publishes the volume and returns the target.
func (n *node) publish(v volume.Volume, pod string) string {
	n.t.Helper()
	u := volume.Use{Access: v.Access}
	if err := n.Stage(n.t.Context(), v.ID, n.stagePath(v.ID), u); err != nil {
		n.t.Fatal(err)
	}
	target := n.target(v.ID, pod)
	if err := n.Publish(n.t.Context(), v.ID, target, u); err != nil {
		n.t.Fatal(err)
	}
	return target
}

// remove unpublishes, unstages and deletes.
func (n *node) remove(id string, pods ...string) {
	n.t.Helper()
	for _, pod := range pods {
		if err := n.Unpublish(n.t.Context(), id, n.target(id, pod)); err != nil {
			n.t.Fatal(err)
		}
	}

	if err := n.Unstage(n.t.Context(), id, n.stagePath(id)); err != nil {
		n.t.Fatal(err)
	}
	if err := n.Delete(n.t.Context(), id); err != nil {
		n.t.Fatal(err)
	}
}

// fill writes to a new file until the volume is full and returns how many bytes it took. chunk is the size of
// each write.
func fill(t *testing.T, dir string, most int64) (written int64) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filled"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i * 7)
	}

	for written < most {
		n, err := f.Write(chunk)
		written += int64(n)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return written
		}
		if err != nil {
			t.Fatal(err)
		}
	}

	return written
}
