package driver_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/trivet-node/trivet/csi/attach"
	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/changedblocks"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/group"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/snapshotmetadata"
	"github.com/trivet-node/trivet/csi/throttle"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
)

// onBtrfs is a pool that is a directory of a disk with btrfs.
const onBtrfs = "a disk with btrfs"

// nodeWith is one whose volumes are held by a backend of that name: without a pool if that is images, and on
// a disk with project quotas if it is their backend, followed by a colon and the kind of file system.
func nodeWith(t *testing.T, backend string) *nodetest.Node {
	t.Helper()
	switch name, kind, _ := strings.Cut(backend, ":"); name {
	case quotadir.Name:
		return nodetest.NewOnQuotas(t, kind, 8<<30)
	case loopfile.Name:
		return nodetest.NewWithoutPool(t)
	case onBtrfs:
		return nodetest.NewOnBtrfs(t, 40<<30)
	default:
		return nodetest.New(t, 40<<30)
	}
}

// start serves a driver with the real backends of a node and returns the socket's path.
func start(t *testing.T, n *nodetest.Node) (socket string) {
	t.Helper()
	n.RestartLimiting(newThrottle(t))
	groups, _, err := group.Open(t.Context(), filepath.Join(n.Dir, "groups"), n.Store)
	if err != nil {
		t.Fatal(err)
	}
	attached, _, err := attach.Open(filepath.Join(n.Dir, "attached"), attachMost)
	if err != nil {
		t.Fatal(err)
	}
	config := driver.Config{
		NodeID:    "node-a",
		Version:   "test",
		Volumes:   n.Store,
		Groups:    groups,
		Attached:  attached,
		Publisher: n.Publisher,
		Limits:    n.Limits,
		Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if n.Pool != nil {
		config.Copies = true
		config.Metadata = snapshotmetadata.New(changedblocks.New(n.Store, n.Pool))
	}
	d, err := driver.New(config)
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

	return socket
}

// newThrottle limits the pods of a group that has none.
func newThrottle(t *testing.T) *throttle.Throttle {
	t.Helper()
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	group := "/" + filepath.Base(testenv.ShortDir(t))
	if err := host.Create(group); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := host.Remove(ctx, group); err != nil {
			t.Error(err)
		}
	})

	limits, err := throttle.New(host, group)
	if err != nil {
		t.Fatal(err)
	}
	return limits
}

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

// ofDevices is a spec for volumes with a device of their own; a volume of the pool has one if it is raw, or
// was made with a file system for which it needs one.
const ofDevices = "should modify a volume created without a volume attribute class"

var specs = regexp.MustCompile(`Ran (\d+) of \d+ Specs`)

// suite is a choice of csi-sanity's specs for a backend. Ginkgo runs one suite per process, so each gets a
// process of its own.
type suite struct {
	name     string
	backend  string // see nodeWith
	access   string
	selected string // a flag of Ginkgo's
	specs    string // how many there are
}

func (s suite) run(t *testing.T) {
	cmd := exec.CommandContext(
		t.Context(),
		os.Args[0],
		"-test.run=^TestSanityOfOneBackend$",
		"-test.v",
		s.selected,
	)

	cmd.Env = append(os.Environ(), "SANITY_BACKEND="+s.backend, "SANITY_ACCESS="+s.access)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	if ran := specs.FindSubmatch(out); ran == nil || string(ran[1]) != s.specs {
		t.Errorf("ran %q, want %s specs", ran, s.specs)
	}
}

// TestSanity runs csi-sanity's 103 specs, but one that upstream has switched off, against each backend.
// Without a pool there are no snapshots, clones and groups: none is announced, and the suite skips its specs
// of them.
func TestSanity(t *testing.T) {
	testenv.Root(t)
	for _, s := range []suite{
		{"pool", btrfspool.Name, "mount", "-ginkgo.skip=" + ofDevices, "101"},
		{"raw", btrfspool.Name, "block", "-ginkgo.skip=^$", "102"},
		{"btrfs below", onBtrfs, "mount", "-ginkgo.skip=" + ofDevices, "101"},
		{"btrfs below, raw", onBtrfs, "block", "-ginkgo.skip=^$", "102"},
		{"images", loopfile.Name, "mount", "-ginkgo.skip=^$", "73"},
		{"images, raw", loopfile.Name, "block", "-ginkgo.skip=^$", "73"},
	} {
		t.Run(s.name, s.run)
	}
}

// ofCopies are the specs that make what directories with quotas have not: snapshots and clones.
const ofCopies = "from an existing source|match the specified|presence of new snapshots|" +
	"limited number of entries|DeleteSnapshot .* appropriate values|" +
	"CreateSnapshot .* (should succeed|different)"

// TestSanityWithProjectQuotas runs them against directories with quotas, but for those of devices and copies.
func TestSanityWithProjectQuotas(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		testenv.ProjectQuotas(t, kind)
		skip := "-ginkgo.skip=" + ofDevices + "|" + ofCopies
		t.Run(kind, suite{kind, quotadir.Name + ":" + kind, "mount", skip, "89"}.run)
	}
}

func TestSanityOfOneBackend(t *testing.T) {
	backend, access := os.Getenv("SANITY_BACKEND"), os.Getenv("SANITY_ACCESS")
	if backend == "" {
		t.Skip("run by TestSanity")
	}

	n := nodeWith(t, backend)
	socket := start(t, n)
	config := sanity.NewTestConfig()
	config.Address = "unix://" + socket
	config.TargetPath = filepath.Join(n.Kubelet, "pub")
	config.StagingPath = filepath.Join(n.Kubelet, "stage")
	config.TestVolumeAccessType = access
	config.TestNodeVolumeAttachLimit = true
	config.DialOptions = append(config.DialOptions, grpc.WithChainUnaryInterceptor(measured))
	config.TestVolumeSize = 1 << 30
	config.TestVolumeExpandSize = 2 << 30
	config.TestVolumeMutableParameters = map[string]string{"writeBytesPerSecond": "50Mi"}
	sanity.Test(t, config)
}
