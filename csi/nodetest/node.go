// Package nodetest is a node's driver without its gRPC and Kubernetes sides, for tests as root: volumes on
// the real backends, in a directory of the test's own, that can be killed, rebooted and run out of disk.
package nodetest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/loopcontrol"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// Node is a directory with volumes whose driver can be stopped, killed and rebooted.
type Node struct {
	*volume.Store
	*publish.Publisher

	T        testing.TB
	Dir      string          // of the pool, the image files and the records
	State    string          // of what a reboot empties
	Kubelet  string          // of staging paths and targets
	Instance string          // in the tags of loop devices
	Found    publish.Report  // by the last start
	Pool     *btrfspool.Pool // nil without one

	cfg     config
	targets *target.Root
	stop    func()
}

type config struct {
	quotas   bool // the disk has project quotas
	noPool   bool // as where mkfs.btrfs is missing
	poolSize int64
	most     int64    // of the volumes together
	prefer   []string // backends
	throttle publish.Throttle
}

// New starts a driver in a temporary directory, with a pool of so many bytes.
func New(t testing.TB, poolSize int64) *Node {
	t.Helper()
	return inDirectory(newNode(t, poolSize))
}

// NewWithoutPool starts a driver in a temporary directory that has images on the disk, and no pool.
func NewWithoutPool(t testing.TB) *Node {
	t.Helper()
	n := newNode(t, 0)
	n.cfg.noPool = true
	n.cfg.prefer = []string{loopfile.Name}
	return inDirectory(n)
}

func inDirectory(n *Node) *Node {
	n.T.Helper()
	n.Dir = testenv.ShortDir(n.T)
	n.State = filepath.Join(n.Dir, "run")
	n.Kubelet = n.Dir
	n.Instance = filepath.Base(n.Dir)
	n.T.Cleanup(func() { n.end(n.Dir) })
	n.Start()
	return n
}

// NewOnDisk starts a driver whose data directory is a disk (ext4) of its own.
func NewOnDisk(t testing.TB, disk, poolSize int64) *Node {
	t.Helper()
	return onDisk(newNode(t, poolSize), disk, "ext4", "-q", "-F", "-m", "0")
}

// NewOnBtrfs starts a driver whose data directory is on a disk of its own that is btrfs, so that its pool is
// a directory of that, not a file.
func NewOnBtrfs(t testing.TB, disk int64) *Node {
	t.Helper()
	return onDisk(newNode(t, disk), disk, "btrfs", "-q", "-K")
}

func onDisk(n *Node, disk int64, kind string, mkfs ...string) *Node {
	t := n.T
	t.Helper()
	outside := testenv.ShortDir(t)
	file, root := filepath.Join(outside, "disk"), filepath.Join(outside, "d")
	n.Dir = filepath.Join(root, "data")
	n.State = filepath.Join(outside, "run")
	n.Kubelet = filepath.Join(outside, "kubelet")
	n.Instance = filepath.Base(outside)
	n.must(
		os.WriteFile(file, nil, 0o600),
		os.Truncate(file, disk),
		os.Mkdir(root, 0o700),
		os.Mkdir(n.Kubelet, 0o700),
	)

	n.command("mkfs."+kind, append(mkfs, file)...)
	n.mountDisk(file, root, kind)
	n.must(os.Mkdir(n.Dir, 0o700))
	t.Cleanup(func() { n.end(outside) })
	n.Start()
	return n
}

// NewOnQuotas starts a driver whose data directory is on a disk of its own with project quotas, of ext4 or
// xfs, which holds volumes as directories unless a request says otherwise.
func NewOnQuotas(t testing.TB, kind string, disk int64) *Node {
	t.Helper()
	n := newNode(t, disk/4)
	n.cfg.quotas = true
	n.cfg.prefer = []string{quotadir.Name, loopfile.Name}
	n.Dir = filepath.Join(testenv.ProjectQuotasOf(t, kind, disk), "data")
	n.State = filepath.Join(n.Dir, "run")
	n.Kubelet = n.Dir
	n.Instance = filepath.Base(testenv.ShortDir(t))
	n.must(os.Mkdir(n.Dir, 0o700))
	t.Cleanup(func() { n.end(n.Dir) })
	n.Start()
	return n
}

// mountDisk mounts the disk in a file, whatever others have loop devices do.
func (n *Node) mountDisk(file, root, kind string) {
	n.T.Helper()
	dev, err := loop.Attach(file, loop.Options{Tag: "trivet-disk/" + n.Instance, AutoClear: true})
	n.must(err)
	defer dev.Close()
	n.must(unix.Mount(dev.Name(), root, kind, 0, ""))
}

func newNode(t testing.TB, poolSize int64) *Node {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "mkfs.btrfs", "btrfs-progs")
	testenv.Program(t, "mkfs.xfs", "xfsprogs")
	prefer := []string{btrfspool.Name, loopfile.Name}
	return &Node{T: t, cfg: config{poolSize: poolSize, prefer: prefer}}
}

func (n *Node) must(errs ...error) {
	n.T.Helper()
	if err := errors.Join(errs...); err != nil {
		n.T.Fatal(err)
	}
}

func (n *Node) command(name string, args ...string) {
	n.T.Helper()
	if out, err := exec.CommandContext(n.T.Context(), name, args...).CombinedOutput(); err != nil {
		n.T.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// Start starts the driver and returns what it found.
func (n *Node) Start() volume.Report {
	n.T.Helper()
	var err error
	backends := backendsOf(n)
	n.targets, err = target.OpenRoot(n.Kubelet)
	n.must(err)
	store, report, err := volume.Open(volume.Config{
		Dir:      filepath.Join(n.Dir, "volumes"),
		Disk:     space.FileSystem{Dir: n.Dir},
		Backends: backends.forVolumes,
		Default:  n.cfg.prefer,
		Most:     n.cfg.most,

		LookPeriod: time.Second,
	})

	n.must(err)
	publisher, found, err := publish.Open(publish.Config{
		Dir:      filepath.Join(n.State, "staged"),
		Volumes:  store,
		Targets:  n.targets,
		Backends: backends.forPods,
		Throttle: n.cfg.throttle,
	})

	n.must(err)

	n.Store, n.Publisher, n.Found = store, publisher, found
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { store.Run(ctx) })
	group.Go(func() {
		publisher.Limits.Run(ctx, func(id string, err error) {
			if err != nil {
				n.T.Logf("the limits of volume %s are not in force: %v", id, err)
			}
		})
	})

	n.stop = func() {
		cancel()
		group.Wait()
	}

	return report
}

type backends struct {
	forVolumes map[string]volume.Backend
	forPods    map[string]publish.Backend
}

// backendsOf are files, the pool unless there is to be none, and directories where the disk has project
// quotas.
func backendsOf(n *Node) backends {
	n.T.Helper()
	records, err := volume.Load(filepath.Join(n.Dir, "volumes"))
	n.must(err)
	held := records.Has(loopfile.Name)
	files, err := loopfile.Open(loopfile.Config{Dir: n.Dir, Instance: n.Instance, Held: held})
	n.must(err)
	b := backends{
		forVolumes: map[string]volume.Backend{loopfile.Name: files},
		forPods:    map[string]publish.Backend{loopfile.Name: files},
	}

	if !n.cfg.noPool {
		n.Pool, err = btrfspool.Open(n.T.Context(), btrfspool.Config{
			Dir:      n.Dir,
			Instance: n.Instance,
			Most:     n.cfg.poolSize,
		})
		n.must(err)
		b.forVolumes[btrfspool.Name], b.forPods[btrfspool.Name] = n.Pool, n.Pool
	}
	if n.cfg.quotas {
		held := records.HasMade(quotadir.Name)
		dirs, err := quotadir.Open(quotadir.Config{Dir: n.Dir, Instance: n.Instance, Held: held})
		n.must(err)
		b.forVolumes[quotadir.Name], b.forPods[quotadir.Name] = dirs, dirs
	}
	return b
}

// Kill ends the driver. It has time for the deletions under way, and for nothing else.
func (n *Node) Kill() {
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	n.targets.Close()
	if n.Pool != nil {
		n.Pool.Close(false)
	}
}

// RestartWithMost starts the driver again with no more bytes for all its volumes.
func (n *Node) RestartWithMost(bytes int64) {
	n.T.Helper()
	n.Kill()
	n.cfg.most = bytes
	n.Start()
}

// RestartPreferring starts the driver again with another order of backends.
func (n *Node) RestartPreferring(backends ...string) {
	n.T.Helper()
	n.Kill()
	n.cfg.prefer = backends
	n.Start()
}

// RestartLimiting starts the driver again with limits of volumes.
func (n *Node) RestartLimiting(throttle publish.Throttle) {
	n.T.Helper()
	n.Kill()
	n.cfg.throttle = throttle
	n.Start()
}

// Reboot ends everything that a reboot ends, and starts again.
func (n *Node) Reboot() volume.Report {
	n.T.Helper()
	n.Kill()
	n.must(mount.UnmountBelow(n.Kubelet), mount.UnmountBelow(n.Dir))
	for tag, dev := range n.devices() {
		n.must(loop.Detach(dev, tag), dev.Close())
	}
	n.must(os.RemoveAll(n.State))
	return n.Start()
}

// end ends the driver and takes away what it has mounted below dir.
func (n *Node) end(dir string) {
	n.Kill()
	if err := mount.UnmountBelow(dir); err != nil {
		n.T.Error(err)
	}
	n.AwaitNoDevices()
	if err := loopcontrol.Mend(); err != nil {
		n.T.Error(err)
	}
}

// AwaitNoDevices fails the test when a loop device of the node is left, and detaches it. The kernel detaches
// in the background.
func (n *Node) AwaitNoDevices() {
	n.T.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.T.Context()), 5*time.Second)
	defer cancel()

	for range retry.Every(ctx, time.Millisecond) {
		found := n.devices()
		for _, dev := range found {
			n.must(dev.Close())
		}
		if len(found) == 0 {
			return
		}
	}

	for tag, dev := range n.devices() {
		n.T.Errorf("loop device %s (%s) is left", dev.Name(), tag)
		n.must(loop.Detach(dev, tag), dev.Close())
	}
}

// devices returns the loop devices of the node, open, by their tags.
func (n *Node) devices() map[string]*os.File {
	n.T.Helper()
	found, err := loop.Find(loop.TagOf(n.Instance, ""))
	n.must(err)
	return found
}

// Eventually waits for what the driver does by itself.
func (n *Node) Eventually(what string, ok func() error) {
	n.T.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.T.Context()), time.Minute)
	defer cancel()

	var err error
	for range retry.Every(ctx, 50*time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}

	n.T.Fatalf("%s: %v", what, err)
}

// Sync commits the pool.
func (n *Node) Sync() error {
	f, err := os.Open(filepath.Join(n.Dir, "pool"))
	if err != nil {
		return err
	}
	defer f.Close()
	return btrfs.Sync(f)
}

// FillDisk writes to the disk beneath until not one block is left; the returned function makes room again.
func (n *Node) FillDisk() (makeRoom func()) {
	n.T.Helper()
	name := filepath.Join(n.Dir, "somebody-elses")
	f, err := os.Create(name)
	n.must(err)
	defer f.Close()

	end := int64(0)
	for _, size := range []int64{64 << 20, 1 << 20, 4096} {
		for err = nil; err == nil; end += size {
			err = unix.Fallocate(int(f.Fd()), 0, end, size)
		}

		end -= size
	}

	if !errors.Is(err, unix.ENOSPC) {
		n.T.Fatal(err)
	}

	n.must(f.Sync())
	return func() {
		n.T.Helper()
		n.must(os.Remove(name))
	}
}
