package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/testenv"
)

// The test binary is the program, when it is asked to be.
func TestMain(m *testing.M) {
	if os.Getenv("BE_TRIVET_CSI") != "" {
		program.Main("trivet-csi", run)
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

// ready waits until the process answers; calls wait for the server by themselves.
func (p *process) ready() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	_, err := csi.NewIdentityClient(p.conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
	if err != nil {
		p.t.Fatal(err)
	}
}

func newProcess(t *testing.T) *process {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "mkfs.btrfs", "btrfs-progs")
	p := &process{t: t, dir: testenv.ShortDir(t)}
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

// life is a volume on its way from creation to deletion. It repeats each step until it is acknowledged, as
// kubelet and provisioners do.
type life struct {
	p          *process
	controller csi.ControllerClient
	node       csi.NodeClient

	name    string
	backend string
	fsType  string
	block   bool
	copies  bool // it has a snapshot, which becomes another volume
	id      string

	snapshotID string
	source     *csi.VolumeContentSource
}

func (p *process) life(name string) *life {
	return &life{
		p:          p,
		controller: csi.NewControllerClient(p.conn),
		node:       csi.NewNodeClient(p.conn),
		name:       name,
		backend:    "btrfs",
	}
}

func (l *life) capability() *csi.VolumeCapability {
	c := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{
			Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		},
	}
	if l.block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		mount := &csi.VolumeCapability_MountVolume{FsType: l.fsType}
		c.AccessType = &csi.VolumeCapability_Mount{Mount: mount}
	}
	return c
}

func (l *life) stagePath() string { return filepath.Join(l.p.dir, "kubelet/stage", l.name) }
func (l *life) target() string    { return filepath.Join(l.p.dir, "kubelet/pods", l.name, "mount") }

func (l *life) create(ctx context.Context) error {
	resp, err := l.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name:                l.name,
		CapacityRange:       &csi.CapacityRange{RequiredBytes: 16 << 20},
		VolumeCapabilities:  []*csi.VolumeCapability{l.capability()},
		Parameters:          map[string]string{"backend": l.backend},
		VolumeContentSource: l.source,
	}, grpc.WaitForReady(true))
	l.id = resp.GetVolume().GetVolumeId()
	return err
}

func (l *life) stage(ctx context.Context) error {
	_, err := l.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId:          l.id,
		StagingTargetPath: l.stagePath(),
		VolumeCapability:  l.capability(),
	}, grpc.WaitForReady(true))
	return err
}

func (l *life) publish(ctx context.Context) error {
	_, err := l.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId:          l.id,
		StagingTargetPath: l.stagePath(),
		TargetPath:        l.target(),
		VolumeCapability:  l.capability(),
	}, grpc.WaitForReady(true))
	return err
}

func (l *life) write(context.Context) error {
	file := l.target()
	if !l.block {
		file = filepath.Join(file, "sign")
	}
	return os.WriteFile(file, []byte(l.name), 0o600)
}

func (l *life) unpublish(ctx context.Context) error {
	request := &csi.NodeUnpublishVolumeRequest{VolumeId: l.id, TargetPath: l.target()}
	_, err := l.node.NodeUnpublishVolume(ctx, request, grpc.WaitForReady(true))
	return err
}

func (l *life) unstage(ctx context.Context) error {
	request := &csi.NodeUnstageVolumeRequest{VolumeId: l.id, StagingTargetPath: l.stagePath()}
	_, err := l.node.NodeUnstageVolume(ctx, request, grpc.WaitForReady(true))
	return err
}

func (l *life) delete(ctx context.Context) error {
	request := &csi.DeleteVolumeRequest{VolumeId: l.id}
	_, err := l.controller.DeleteVolume(ctx, request, grpc.WaitForReady(true))
	return err
}

func (l *life) snapshot(ctx context.Context) error {
	resp, err := l.controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{
		Name:           "of-" + l.name,
		SourceVolumeId: l.id,
	}, grpc.WaitForReady(true))
	l.snapshotID = resp.GetSnapshot().GetSnapshotId()
	return err
}

func (l *life) deleteSnapshot(ctx context.Context) error {
	request := &csi.DeleteSnapshotRequest{SnapshotId: l.snapshotID}
	_, err := l.controller.DeleteSnapshot(ctx, request, grpc.WaitForReady(true))
	return err
}

// restored is a volume with what the snapshot has.
func (l *life) restored() *life {
	r := *l
	r.name, r.copies = "from-"+l.name, false
	r.source = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: l.snapshotID},
	}}
	return &r
}

// read checks that the volume has what was written to the one that it was restored from.
func (l *life) read(context.Context) error {
	file, want := l.target(), strings.TrimPrefix(l.name, "from-")
	if !l.block {
		file = filepath.Join(file, "sign")
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(f, got); err != nil || string(got) != want {
		return fmt.Errorf("volume %s holds %q, %w", l.name, got, err)
	}
	return nil
}

// copy is the life of a snapshot, and of a volume that is restored from it and outlives it.
func (l *life) copy(ctx context.Context) error {
	if !l.copies {
		return nil
	}
	if err := insist(ctx, l.snapshot); err != nil {
		return err
	}
	r := l.restored()
	return doAll(ctx, []func(context.Context) error{
		r.create, l.deleteSnapshot, r.stage, r.publish, r.read, r.unpublish, r.unstage, r.delete,
	})
}

func (l *life) run(ctx context.Context) error {
	err := doAll(ctx, []func(context.Context) error{l.create, l.stage, l.publish, l.write})
	if err == nil {
		err = l.copy(ctx)
	}
	if err == nil {
		err = doAll(ctx, []func(context.Context) error{l.unpublish, l.unstage, l.delete})
	}
	if err != nil {
		return fmt.Errorf("volume %s (%s): %w", l.name, l.id, err)
	}
	return nil
}

func doAll(ctx context.Context, steps []func(context.Context) error) error {
	for i, step := range steps {
		if err := insist(ctx, step); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// insist repeats a step until it succeeds or ctx ends.
func insist(ctx context.Context, step func(context.Context) error) error {
	var last error
	for ctx.Err() == nil {
		if last = step(ctx); last == nil {
			return nil
		}
	}
	return errors.Join(last, ctx.Err())
}

// The driver is killed while eight volumes at a time go through their lives. It always comes back, no step
// that was acknowledged is lost, and in the end nothing is left.
func TestKilledAtAnyMoment(t *testing.T) {
	p := newProcess(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	var lives sync.WaitGroup
	for worker := range 8 {
		lives.Go(func() {
			for i := range 4 {
				l := p.life(fmt.Sprintf("v%d-%d", worker, i))
				switch worker {
				case 0, 1:
					l.backend, l.block = "image", worker == 1
				case 2, 3:
					l.fsType, l.block, l.copies = "ext4", worker == 3, true
				default:
					l.copies = true
				}
				if l.block {
					l.fsType = ""
				}

				if err := l.run(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}

	done := make(chan struct{})
	go func() { lives.Wait(); close(done) }()
	kills := p.killUntil(done)
	t.Logf("killed %d times", kills)
	p.ready()
	resp, err := csi.NewControllerClient(p.conn).ListVolumes(ctx, &csi.ListVolumesRequest{})
	if err != nil || len(resp.GetEntries()) > 0 {
		t.Errorf("volumes left: %v, %v", resp, err)
	}
	snapshots, err := csi.NewControllerClient(p.conn).ListSnapshots(ctx, &csi.ListSnapshotsRequest{})
	if err != nil || len(snapshots.GetEntries()) > 0 {
		t.Errorf("snapshots left: %v, %v", snapshots, err)
	}

	p.end(syscall.SIGTERM)
	p.nothingLeft()
}

// killUntil kills and restarts the driver at random moments until the channel is closed. The moments are
// further and further apart, so that a slow machine finishes, too.
func (p *process) killUntil(done <-chan struct{}) (kills int) {
	p.t.Helper()
	for {
		pause := time.Duration(20+rand.IntN(150)+4*kills) * time.Millisecond
		select {
		case <-done:
			return kills
		case <-time.After(pause):
			p.end(syscall.SIGKILL)
			p.start()
			kills++
		}
	}
}

func (p *process) nothingLeft() {
	p.t.Helper()
	if left, err := mount.Below(p.dir); err != nil || len(left) > 0 {
		p.t.Errorf("mounts left: %v, %v", left, err)
	}

	for _, dir := range []string{"data/volumes", "data/images", "run/staged"} {
		entries, err := os.ReadDir(filepath.Join(p.dir, dir))
		if err != nil || len(entries) > 0 {
			p.t.Errorf("left in %s: %v, %v", dir, entries, err)
		}
	}

	instance, err := instanceOf(filepath.Join(p.dir, "data"))
	if err != nil {
		p.t.Fatal(err)
	}

	// The kernel detaches devices in the background.
	deadline := time.Now().Add(5 * time.Second)
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
