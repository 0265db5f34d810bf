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

	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/target"
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
	p, err := btrfspool.Open(t.Context(), btrfspool.Config{Dir: dir, Instance: instance, Size: 40 << 30})
	if err != nil {
		t.Fatal(err)
	}

	im, err := loopfile.Open(loopfile.Config{Dir: dir, Instance: instance})
	if err != nil {
		t.Fatal(err)
	}

	targets, err := target.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}

	volumes, _, err := volume.Open(volume.Config{
		Dir:      filepath.Join(dir, "volumes"),
		Disk:     space.FileSystem{Dir: dir},
		Backends: map[string]volume.Backend{btrfspool.Name: p, loopfile.Name: im},
		Default:  prefer,
	})
	if err != nil {
		t.Fatal(err)
	}

	publisher, _, err := publish.Open(publish.Config{
		Dir:      filepath.Join(dir, "run"),
		Volumes:  volumes,
		Targets:  targets,
		Backends: map[string]publish.Backend{btrfspool.Name: p, loopfile.Name: im},
	})
	if err != nil {
		t.Fatal(err)
	}

	d, err := driver.New(driver.Config{
		NodeID:    "node-a",
		Version:   "test",
		Volumes:   volumes,
		Publisher: publisher,
		Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
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

// sanitySpecs is how many of csi-sanity's specs are about what the driver serves.
const sanitySpecs = "53"

var specs = regexp.MustCompile(`Ran (\d+) of \d+ Specs`)

// TestSanity runs csi-sanity against each backend. Ginkgo runs one suite per process, so each gets a process
// of its own.
func TestSanity(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct{ prefer, access string }{
		{btrfspool.Name, "mount"},
		{loopfile.Name, "mount"},
		{loopfile.Name, "block"},
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

			if ran := specs.FindSubmatch(out); ran == nil || string(ran[1]) != sanitySpecs {
				t.Errorf("ran %q, want %s specs", ran, sanitySpecs)
			}
		})
	}
}

func TestSanityOfOneBackend(t *testing.T) {
	prefer, access := os.Getenv("SANITY_BACKEND"), os.Getenv("SANITY_ACCESS")
	if prefer == "" {
		t.Skip("run by TestSanity")
	}

	dir, socket := start(t, prefer, loopfile.Name)
	config := sanity.NewTestConfig()
	config.Address = "unix://" + socket
	config.TargetPath = filepath.Join(dir, "pub")
	config.StagingPath = filepath.Join(dir, "stage")
	config.TestVolumeAccessType = access
	config.TestVolumeSize = 1 << 30
	config.TestVolumeExpandSize = 2 << 30
	sanity.Test(t, config)
}
