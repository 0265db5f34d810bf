package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	if _, err := csi.NewIdentityClient(p.conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true)); err != nil {
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
	p       *process
	name    string
	backend string
	block   bool
}

func (l life) run(ctx context.Context) error {
	controller, node := csi.NewControllerClient(l.p.conn), csi.NewNodeClient(l.p.conn)
	capability := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{
		Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}}}
	if l.block {
		capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	}

	var id string
	stage, target := filepath.Join(
		l.p.dir,
		"kubelet/stage",
		l.name,
	), filepath.Join(l.p.dir, "kubelet/pods", l.name, "mount")

	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error {
			resp, err := controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
				Name:               l.name,
				CapacityRange:      &csi.CapacityRange{RequiredBytes: 16 << 20},
				VolumeCapabilities: []*csi.VolumeCapability{capability},
				Parameters:         map[string]string{"backend": l.backend},
			}, grpc.WaitForReady(true))

			id = resp.GetVolume().GetVolumeId()
			return err
		},
		func(ctx context.Context) error {
			_, err := node.NodeStageVolume(
				ctx,
				&csi.NodeStageVolumeRequest{
					VolumeId:          id,
					StagingTargetPath: stage,
					VolumeCapability:  capability,
				},
				grpc.WaitForReady(true),
			)

			return err
		},
		func(ctx context.Context) error {
			_, err := node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
				VolumeId:          id,
				StagingTargetPath: stage,
				TargetPath:        target,
				VolumeCapability:  capability,
			}, grpc.WaitForReady(true))

			return err
		},
		func(context.Context) error {
			if l.block {
				return os.WriteFile(target, []byte(l.name), 0o600)
			}

			return os.WriteFile(filepath.Join(target, "sign"), []byte(l.name), 0o600)
		},
		func(ctx context.Context) error {
			_, err := node.NodeUnpublishVolume(
				ctx,
				&csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target},
				grpc.WaitForReady(true),
			)

			return err
		},
		func(ctx context.Context) error {
			_, err := node.NodeUnstageVolume(
				ctx,
				&csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: stage},
				grpc.WaitForReady(true),
			)

			return err
		},
		func(ctx context.Context) error {
			_, err := controller.DeleteVolume(
				ctx,
				&csi.DeleteVolumeRequest{VolumeId: id},
				grpc.WaitForReady(true),
			)

			return err
		},
	} {
		if err := insist(ctx, step); err != nil {
			return fmt.Errorf("volume %s (%s): %w", l.name, id, err)
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

// Killed again and again while eight volumes at a time go through their lives, the driver always comes back,
// no step that was acknowledged is lost, and in the end nothing is left.
func TestKilledAtAnyMoment(t *testing.T) {
	p := newProcess(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	var lives sync.WaitGroup
	for worker := range 8 {
		lives.Go(func() {
			for i := range 4 {
				l := life{p: p, name: fmt.Sprintf("v%d-%d", worker, i), backend: "btrfs"}
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
	kills := 0
	for running := true; running; {
		select {
		case <-done:
			running = false

		// longer and longer: a slow machine gets there, too
		case <-time.After(time.Duration(20+rand.IntN(150)+4*kills) * time.Millisecond):
			p.end(syscall.SIGKILL)
			p.start()
			kills++
		}
	}

	t.Logf("killed %d times", kills)
	p.ready()
	resp, err := csi.NewControllerClient(p.conn).ListVolumes(ctx, &csi.ListVolumesRequest{})
	if err != nil || len(resp.GetEntries()) > 0 {
		t.Errorf("volumes left: %v, %v", resp, err)
	}

	p.end(syscall.SIGTERM)
	p.nothingLeft()
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

	// the kernel detaches devices in the background
	for deadline := time.Now().Add(5 * time.Second); ; {
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

func TestFlagsAreChecked(t *testing.T) {
	for _, args := range [][]string{
		{"--backend=floppy"},
		{"--pool-size=much"},
		{"--endpoint=tcp://x"},
		{"--data-dir=relative"},
		{"extra"},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], slices.Concat([]string{"--node-name=a"}, args)...)
		cmd.Env = append(os.Environ(), "BE_TRIVET_CSI=1")
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != program.ExitUsage {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
}
