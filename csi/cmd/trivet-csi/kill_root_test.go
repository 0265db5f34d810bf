package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
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
	block   bool
	id      string
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
		c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}}
	}
	return c
}

func (l *life) stagePath() string { return filepath.Join(l.p.dir, "kubelet/stage", l.name) }
func (l *life) target() string    { return filepath.Join(l.p.dir, "kubelet/pods", l.name, "mount") }

func (l *life) create(ctx context.Context) error {
	resp, err := l.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name:               l.name,
		CapacityRange:      &csi.CapacityRange{RequiredBytes: 16 << 20},
		VolumeCapabilities: []*csi.VolumeCapability{l.capability()},
		Parameters:         map[string]string{"backend": l.backend},
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

func (l *life) run(ctx context.Context) error {
	steps := []func(context.Context) error{
		l.create, l.stage, l.publish, l.write, l.unpublish, l.unstage, l.delete,
	}
	for i, step := range steps {
		if err := insist(ctx, step); err != nil {
			return fmt.Errorf("volume %s (%s), step %d: %w", l.name, l.id, i, err)
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
				if worker < 2 {
					l.backend, l.block = "image", worker == 1
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
