package driver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/trivet-node/trivet/csi/group"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
)

// fakeVolumes answers with what it is given, and keeps the last request.
type fakeVolumes struct {
	all       []volume.Volume
	snapshots []volume.Volume
	err       error
	request   volume.Request
	grown     [2]int64 // required, limit
	limits    volume.Limits
	deleted   []string
	trouble   map[string]error
}

func (f *fakeVolumes) Create(_ context.Context, r volume.Request) (volume.Volume, error) {
	f.request = r
	return volume.Volume{Spec: volume.Spec{ID: "vol-1", Size: r.Required, Backend: "btrfs"}}, f.err
}

func (f *fakeVolumes) Delete(_ context.Context, id string) error {
	f.deleted = append(f.deleted, id)
	return f.err
}

func (f *fakeVolumes) Grow(_ context.Context, id string, required, limit int64) (volume.Volume, error) {
	f.grown = [2]int64{required, limit}
	return volume.Volume{Spec: volume.Spec{ID: id, Size: required}}, f.err
}

func (f *fakeVolumes) Modify(_ context.Context, id string, l volume.Limits) (volume.Volume, error) {
	f.limits = l
	return volume.Volume{Spec: volume.Spec{ID: id, Limits: l}}, f.err
}

func (f *fakeVolumes) Get(id string) (volume.Volume, error) {
	for _, v := range f.all {
		if v.ID == id {
			return v, nil
		}
	}
	return volume.Volume{}, fmt.Errorf("%w: %s", volume.ErrNotFound, id)
}

func (f *fakeVolumes) Snapshot(id string) (volume.Volume, error) {
	for _, v := range f.snapshots {
		if v.ID == id {
			return v, nil
		}
	}
	return volume.Volume{}, fmt.Errorf("%w: %s", volume.ErrNotFound, id)
}

func (f *fakeVolumes) Snapshots(source, after string, limit int) []volume.Volume {
	var page []volume.Volume
	for _, v := range f.snapshots {
		if v.ID > after && (source == "" || source == v.Source) && (limit == 0 || len(page) < limit) {
			page = append(page, v)
		}
	}
	return page
}

func (f *fakeVolumes) Trouble() map[string]error { return f.trouble }

func (f *fakeVolumes) List(after string, limit int) []volume.Volume {
	var page []volume.Volume
	for _, v := range f.all {
		if v.ID > after && (limit == 0 || len(page) < limit) {
			page = append(page, v)
		}
	}
	return page
}

func (f *fakeVolumes) Available(r volume.Request) (int64, error) {
	f.request = r
	return 10 << 30, f.err
}

// fakeGroups has what it is given.
type fakeGroups struct {
	all     []group.Group
	err     error
	created []string // name and sources
	deleted []string
}

func (f *fakeGroups) Create(_ context.Context, name string, sources []string) (group.Group, error) {
	f.created = append([]string{name}, sources...)
	return group.Group{ID: "group-new"}, f.err
}

func (f *fakeGroups) Delete(_ context.Context, id string) error {
	f.deleted = append(f.deleted, id)
	return f.err
}

func (f *fakeGroups) Get(id string) (group.Group, error) {
	for _, g := range f.all {
		if g.ID == id {
			return g, nil
		}
	}
	return group.Group{}, fmt.Errorf("%w: %s", volume.ErrNotFound, id)
}

func (f *fakeGroups) Of(snapshot string) string {
	for _, g := range f.all {
		for _, s := range g.Snapshots {
			if s.ID == snapshot {
				return g.ID
			}
		}
	}
	return ""
}

// fakePublisher keeps its calls.
type fakePublisher struct {
	unlimitable bool // no limits can be in force

	calls []string
	use   publish.Use
	err   error
	usage publish.Usage
}

func (f *fakePublisher) call(name, id, path string) error {
	f.calls = append(f.calls, strings.Join([]string{name, id, path}, " "))
	return f.err
}

func (f *fakePublisher) Stage(_ context.Context, id, path string, u publish.Use) error {
	f.use = u
	return f.call("stage", id, path)
}

func (f *fakePublisher) Unstage(_ context.Context, id, path string) error {
	return f.call("unstage", id, path)
}

func (f *fakePublisher) Publish(_ context.Context, id, path string, u publish.Use) error {
	f.use = u
	return f.call("publish", id, path)
}

func (f *fakePublisher) Unpublish(_ context.Context, id, path string) error {
	return f.call("unpublish", id, path)
}

func (f *fakePublisher) GrowStaged(_ context.Context, id string) (volume.Volume, error) {
	return volume.Volume{Spec: volume.Spec{ID: id, Size: 5}}, f.call("grow", id, "")
}

func (f *fakePublisher) GrowsStaged(v volume.Volume) bool { return v.ID == "image" }

func (f *fakePublisher) Check(l volume.Limits) error {
	if f.unlimitable && l != (volume.Limits{}) {
		return volume.ErrInvalid
	}
	return nil
}

func (f *fakePublisher) Enforce(_ context.Context, id string) error { return f.call("limit", id, "") }

func (f *fakePublisher) Stats(id, path string) (volume.Volume, publish.Usage, error) {
	v := volume.Volume{Spec: volume.Spec{ID: id, Access: volume.Filesystem}}
	if id == "raw" {
		v.Access = volume.Block
	}
	return v, f.usage, f.call("stats", id, path)
}

type fixture struct {
	volumes    *fakeVolumes
	groups     *fakeGroups
	publisher  *fakePublisher
	identity   csi.IdentityClient
	controller csi.ControllerClient
	group      csi.GroupControllerClient
	metadata   csi.SnapshotMetadataClient
	node       csi.NodeClient
}

// serve serves a driver with fakes behind it, which has 64 MiB for inline volumes.
func serve(t *testing.T) *fixture {
	t.Helper()
	return serveInline(t, 64<<20)
}

// serveInline is serve with that many bytes for inline volumes.
func serveInline(t *testing.T, most int64) *fixture {
	t.Helper()
	return serveConfig(t, func(c *Config) { c.InlineMost = most })
}

// serveConfig is serve with a changed configuration.
func serveConfig(t *testing.T, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{volumes: &fakeVolumes{}, groups: &fakeGroups{}, publisher: &fakePublisher{}}
	for _, id := range []string{"image", "plain", "raw"} {
		f.volumes.all = append(f.volumes.all, volume.Volume{
			Spec: volume.Spec{ID: id, Access: volume.Filesystem, FSType: "xfs"},
		})
	}

	config := Config{
		NodeID:    "a",
		InlineDir: "/inline",
		Version:   "test",
		Volumes:   f.volumes,
		Groups:    f.groups,
		Publisher: f.publisher,
		Limits:    f.publisher,
		Copies:    true,
		Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	change(&config)
	d, err := New(config)
	if err != nil {
		t.Fatal(err)
	}

	listener := bufconn.Listen(1 << 16)
	server := d.Server()
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
	conn, err := grpc.NewClient("passthrough:driver",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-done
	})

	f.identity = csi.NewIdentityClient(conn)
	f.controller = csi.NewControllerClient(conn)
	f.group = csi.NewGroupControllerClient(conn)
	f.metadata = csi.NewSnapshotMetadataClient(conn)
	f.node = csi.NewNodeClient(conn)
	return f
}

func mountCapability(options ...string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{
			Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
		},
		AccessType: &csi.VolumeCapability_Mount{
			Mount: &csi.VolumeCapability_MountVolume{FsType: "xfs", MountFlags: options},
		},
	}
}

func checkCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: %s (%v), want %s", what, got, err, want)
	}
}

func topology(node string) *csi.Topology {
	return &csi.Topology{Segments: map[string]string{TopologyKey: node}}
}
