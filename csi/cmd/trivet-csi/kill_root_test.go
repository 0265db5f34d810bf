package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/loan"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/testenv"
)

// The test binary is the program, when it is asked to be.
func TestMain(m *testing.M) {
	if os.Getenv("BE_TRIVET_CSI") != "" {
		main()
	}
	os.Exit(testenv.OwnMounts(m))
}

// process is a running trivet-csi in a directory that outlives it.
type process struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	conn *grpc.ClientConn
}

func (p *process) start() {
	p.t.Helper()
	cmd := exec.Command(
		os.Args[0],
		"--endpoint=unix://"+p.dir+"/csi.sock",
		"--node-name=node-a",
		"--data-dir="+p.dir+"/data",
		"--state-dir="+p.dir+"/run",
		"--kubelet-dir="+p.dir+"/kubelet",
		"--registration-dir="+p.dir+"/reg",
		"--pool-size=2Gi",
		"--reserve=1Mi",
		"--inline-most=64Mi",
	)

	cmd.Env = append(os.Environ(), "BE_TRIVET_CSI=1")
	cmd.Stderr = p.t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}

	p.cmd = cmd
}

// end sends the signal and waits.
func (p *process) end(signal syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil && signal == syscall.SIGTERM {
		p.t.Error(err)
	}
}

// ready waits until the process answers on all of its sockets, of which that of CSI is the first. A call that
// was sent to one that was killed is repeated.
func (p *process) ready() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	err := insist(ctx, func(ctx context.Context) error {
		_, err := csi.NewIdentityClient(p.conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, path := range []string{loan.Socket(p.dir + "/run"), p.registration()} {
		awaitSocket(p.t, "the driver was started", path)
	}
}

// registration is the socket by which kubelet finds the driver.
func (p *process) registration() string { return filepath.Join(p.dir, "reg", driver.Name+"-reg.sock") }

// where are the directories of the process.
func (p *process) where() options {
	return options{dataDir: p.dir + "/data", kubeletDir: p.dir + "/kubelet"}
}

func newProcess(t *testing.T) *process {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "mkfs.btrfs", "btrfs-progs")
	return newProcessIn(t, testenv.ShortDir(t))
}

func newProcessIn(t *testing.T, dir string) *process {
	t.Helper()
	p := &process{t: t, dir: dir}
	conn, err := socket.Dial(p.dir + "/csi.sock")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { conn.Close() })
	p.conn = conn
	p.start()
	p.ready()
	return p
}

// kills is how often the driver is killed, unless TRIVET_KILLS says another number.
const kills = 20

func killsWanted(t *testing.T) int {
	t.Helper()
	text := os.Getenv("TRIVET_KILLS")
	if text == "" {
		return kills
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("TRIVET_KILLS: %v", err)
	}
	return n
}

// The driver is killed while ten volumes at a time go through their lives. It always comes back, no step
// that was acknowledged is lost, nor what was written, and in the end nothing is left.
func TestKilledAtAnyMoment(t *testing.T) {
	p := newProcess(t)
	n := killsWanted(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(n)*10*time.Second)
	defer cancel()

	lived := p.killDuringLives(ctx, n, 10, p.lifeOf)
	t.Logf("killed %d times during the lives of %d volumes and their copies", n, lived)

	p.nothingListed(ctx)
	p.noGroupsLeft()
	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

// killDuringLives kills the driver n times while workers have volumes live, one after the other, and returns
// how many lived. Each life is lived to its end.
func (p *process) killDuringLives(
	ctx context.Context, n, workers int, lifeOf func(worker, i int) *life,
) (lived int64) {
	enough := make(chan struct{})
	var count atomic.Int64
	var lives sync.WaitGroup
	for worker := range workers {
		lives.Go(func() {
			for i := 0; !isClosed(enough) && !p.t.Failed(); i++ {
				if err := lifeOf(worker, i).run(ctx); err != nil {
					p.t.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}

	for i := 0; i < n && !p.t.Failed(); i++ {
		p.killOnce()
	}
	close(enough)
	lives.Wait()
	return count.Load()
}

// lifeOf is the next volume of a worker; the workers have different kinds of volumes.
func (p *process) lifeOf(worker, i int) *life {
	l := p.life(fmt.Sprintf("v%d-%d", worker, i))
	switch worker {
	case 0, 1:
		l.backend, l.block = "image", worker == 1
	case 2, 3:
		l.fsType, l.block, l.copies = "ext4", worker == 3, true
	case 8, 9:
		l.fsType, l.secret = "ext4", "the key of a life, which is long enough"
		l.copies = worker == 9
		if worker == 8 {
			l.backend = "image"
		}
	default:
		l.copies = true
	}
	if l.block {
		l.fsType = ""
	}

	// To grow ext4 in use takes more rights than tests have everywhere.
	l.grows = l.block || l.fsType == "" && worker > 3
	l.grown = l.secret != ""
	return l
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// killOnce kills the driver at a random moment, while it works or, one time in four, while it starts, and
// starts it again.
func (p *process) killOnce() {
	p.t.Helper()
	most := 100 * time.Millisecond
	if rand.IntN(4) > 0 {
		p.ready()
		most = 400 * time.Millisecond
	}
	<-time.After(rand.N(most))
	p.end(syscall.SIGKILL)
	p.start()
}

// nothingListed checks that the driver, as it says, has no volume and no snapshot.
func (p *process) nothingListed(ctx context.Context) {
	p.t.Helper()
	p.ready()
	resp, err := csi.NewControllerClient(p.conn).ListVolumes(ctx, &csi.ListVolumesRequest{})
	if err != nil || len(resp.GetEntries()) > 0 {
		p.t.Errorf("volumes left: %v, %v", resp, err)
	}
	snapshots, err := csi.NewControllerClient(p.conn).ListSnapshots(ctx, &csi.ListSnapshotsRequest{})
	if err != nil || len(snapshots.GetEntries()) > 0 {
		p.t.Errorf("snapshots left: %v, %v", snapshots, err)
	}
}

// noGroupsLeft checks that there are no subvolumes and no quota groups of volumes in the pool. The kernel
// takes a subvolume apart in the background, and its own group with it.
func (p *process) noGroupsLeft() {
	p.t.Helper()
	dir, err := os.Open(filepath.Join(p.dir, "data/pool/volumes"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer dir.Close()
	if names, err := dir.Readdirnames(-1); err != nil || len(names) > 0 {
		p.t.Errorf("subvolumes left: %v, %v", names, err)
	}

	info, err := btrfs.Stat(dir)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	var left []string
	for range retry.Every(ctx, 100*time.Millisecond) {
		if left = groupsOfVolumes(p.t, info.UUID); len(left) == 0 {
			return
		}
		if err := btrfs.Sync(dir); err != nil {
			p.t.Fatal(err)
		}
	}
	p.t.Errorf("quota groups left: %v", left)
}

// groupsOfVolumes returns the quota groups of a file system but those of its top and of all volumes together.
func groupsOfVolumes(t *testing.T, uuid string) []string {
	t.Helper()
	entries, err := os.ReadDir("/sys/fs/btrfs/" + uuid + "/qgroups")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		above := strings.HasPrefix(e.Name(), "30_") || e.Name() == "31_1"
		if e.IsDir() && e.Name() != "0_5" && !above {
			names = append(names, e.Name())
		}
	}
	return names
}

const keysOfImages, keysOfPool = "data/keys/image", "data/keys/btrfs"

func (p *process) nothingLeft() {
	p.t.Helper()
	if left, err := mount.Below(p.dir); err != nil || len(left) > 0 {
		p.t.Errorf("mounts left: %v, %v", left, err)
	}

	for _, dir := range []string{
		"data/volumes", "data/images", "data/groups", "run/staged", keysOfImages, keysOfPool,
	} {
		entries, err := os.ReadDir(filepath.Join(p.dir, dir))
		if errors.Is(err, os.ErrNotExist) && (dir == keysOfImages || dir == keysOfPool) {
			// There was no encrypted volume.
			continue
		}
		if err != nil || len(entries) > 0 {
			p.t.Errorf("left in %s: %v, %v", dir, entries, err)
		}
	}

	instance, err := instanceOf(p.where())
	if err != nil {
		p.t.Fatal(err)
	}

	// The kernel detaches devices in the background.
	deadline := time.Now().Add(time.Minute)
	for {
		found, err := loop.Find(loop.TagOf(instance, ""))
		if err != nil {
			p.t.Fatal(err)
		}

		for _, dev := range found {
			dev.Close()
		}

		if len(found) == 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("loop devices left: %v", found)
		}
	}
}

func TestSecondDriverOnTheSameDirectoryIsRefused(t *testing.T) {
	p := newProcess(t)
	for _, endpoint := range []string{"csi.sock", "other.sock"} {
		cmd := exec.CommandContext(
			t.Context(),
			os.Args[0],
			"--endpoint=unix://"+p.dir+"/"+endpoint,
			"--data-dir="+p.dir+"/data",
			"--state-dir="+p.dir+"/run",
			"--kubelet-dir="+p.dir+"/kubelet",
			"--registration-dir=",
		)

		cmd.Env = append(os.Environ(), "BE_TRIVET_CSI=1")
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != program.ExitCantRun {
			t.Errorf("a second process with %s: %v: %s", endpoint, err, out)
		}
	}

	p.end(syscall.SIGTERM)
	p.nothingLeft()
}
