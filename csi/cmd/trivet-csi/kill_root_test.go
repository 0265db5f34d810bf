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

	for _, dir := range []string{"data/volumes", "data/images", "data/groups", "run/staged"} {
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
