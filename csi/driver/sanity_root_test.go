package driver_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"

	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/mount"
	"github.com/trivet-node/trivet/csi/pool"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

// start serves a driver with the real backends in a directory of its own and returns the directory and the
// socket's path.
func start(t *testing.T, prefer ...string) (dir, socket string) {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "mkfs.btrfs", "btrfs-progs")
	testenv.Program(t, "mkfs.xfs", "xfsprogs")
	dir = testenv.ShortDir(t)
	instance := filepath.Base(dir)
	p, err := pool.Open(t.Context(), pool.Config{Dir: dir, Instance: instance, Size: 40 << 30})
	if err != nil {
		t.Fatal(err)
	}

	im, err := image.Open(image.Config{Dir: dir, Instance: instance})
	if err != nil {
		t.Fatal(err)
	}

	targets, err := mount.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}

	volumes, _, err := volume.Open(volume.Config{
		DataDir:  dir,
		StateDir: filepath.Join(dir, "run"),
		Targets:  targets,
		Default:  prefer,
		Backends: map[string]volume.Backend{pool.Name: p, image.Name: im},
	})
	if err != nil {
		t.Fatal(err)
	}

	d, err := driver.New(driver.Config{
		NodeID:  "node-a",
		Version: "test",
		Volumes: volumes,
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}

	socket = filepath.Join(dir, "csi.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}

	server := d.Server()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = server.Serve(l); volumes.Run(ctx); close(done) }()
	t.Cleanup(func() {
		server.Stop()
		cancel()
		<-done
		for _, f := range []func() error{targets.Close, func() error { return p.Close(true) }} {
			if err := f(); err != nil {
				t.Error(err)
			}
		}

		if left := volumes.List("", 0); len(left) > 0 {
			t.Errorf("%d volumes are left: %v", len(left), left)
		}
	})

	return dir, socket
}

// TestSanity runs csi-sanity against each backend. Ginkgo runs one suite per process, so each gets a process
// of its own.
func TestSanity(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct{ prefer, access string }{
		{pool.Name, "mount"},
		{image.Name, "mount"},
		{image.Name, "block"},
	} {
		t.Run(c.prefer+" "+c.access, func(t *testing.T) {
			cmd := exec.CommandContext(
				t.Context(),
				os.Args[0],
				"-test.run=^TestSanityOfOneBackend$",
				"-test.v",
			)

			cmd.Env = append(os.Environ(), "SANITY_BACKEND="+c.prefer, "SANITY_ACCESS="+c.access)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}

			t.Logf("%s", regexp.MustCompile(`Ran \d+ of \d+ Specs.*\n.*`).Find(out))
		})
	}
}

func TestSanityOfOneBackend(t *testing.T) {
	prefer, access := os.Getenv("SANITY_BACKEND"), os.Getenv("SANITY_ACCESS")
	if prefer == "" {
		t.Skip("run by TestSanity")
	}

	dir, socket := start(t, prefer, image.Name)
	config := sanity.NewTestConfig()
	config.Address = "unix://" + socket
	config.TargetPath = filepath.Join(dir, "pub")
	config.StagingPath = filepath.Join(dir, "stage")
	config.TestVolumeAccessType = access
	config.TestVolumeSize = 1 << 30
	config.TestVolumeExpandSize = 2 << 30
	sanity.Test(t, config)
}
