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
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/trivet-node/trivet/csi/attach"
	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/group"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/internal/testenv"
)

// start serves a driver with the real backends in a directory of its own and returns the directory and the
// socket's path.
func start(t *testing.T, prefer ...string) (dir, socket string) {
	t.Helper()
	n := nodetest.New(t, 40<<30)
	n.RestartPreferring(prefer...)
	groups, _, err := group.Open(t.Context(), filepath.Join(n.Dir, "groups"), n.Store)
	if err != nil {
		t.Fatal(err)
	}
	attached, _, err := attach.Open(filepath.Join(n.Dir, "attached"), attachMost)
	if err != nil {
		t.Fatal(err)
	}
	d, err := driver.New(driver.Config{
		NodeID:    "node-a",
		Version:   "test",
		Volumes:   n.Store,
		Groups:    groups,
		Attached:  attached,
		Publisher: n.Publisher,
		Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}

	socket = filepath.Join(n.Dir, "csi.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}

	server := d.Server()
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
		if left := n.List("", 0); len(left) > 0 {
			t.Errorf("%d volumes are left: %v", len(left), left)
		}
	})

	return n.Dir, socket
}

// sanitySpecs is how many of csi-sanity's 103 specs are about what the driver serves: all but one, which
// upstream has switched off, and eight about ControllerModifyVolume.
const sanitySpecs = "94"

// attachMost is how many volumes csi-sanity may attach. It tries one more.
const attachMost = 3

// measured notes the size of each answer in it, as protobuf does with what it sends. One spec compares a
// message that it has sent with an equal one that it has received, these notes included.
func measured(
	ctx context.Context,
	method string,
	req, reply any,
	conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	err := invoke(ctx, method, req, reply, conn, opts...)
	if message, ok := reply.(proto.Message); ok {
		proto.Size(message)
	}
	return err
}

var specs = regexp.MustCompile(`Ran (\d+) of \d+ Specs`)

// TestSanity runs csi-sanity against each backend. Ginkgo runs one suite per process, so each gets a process
// of its own.
func TestSanity(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct{ prefer, access string }{
		{btrfspool.Name, "mount"},
		{btrfspool.Name, "block"},
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
	config.TestNodeVolumeAttachLimit = true
	config.DialOptions = append(config.DialOptions, grpc.WithChainUnaryInterceptor(measured))
	config.TestVolumeSize = 1 << 30
	config.TestVolumeExpandSize = 2 << 30
	sanity.Test(t, config)
}
