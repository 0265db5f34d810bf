// Package driver is the CSI 1.13 adapter of packages volume and publish: it checks requests, translates them,
// and chooses the gRPC code of each error (codes.go). One process serves Identity, Controller,
// GroupController, SnapshotMetadata and Node, for the volumes of the node that it runs on.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/trivet-node/trivet/csi/attach"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/trace"
)

// Names that Kubernetes objects refer to.
const (
	Name        = "csi.trivet.dev"
	TopologyKey = "topology.csi.trivet.dev/node"
)

// Volumes are the volumes of this node. It is a volume.Store.
type Volumes interface {
	Create(context.Context, volume.Request) (volume.Volume, error)
	Delete(ctx context.Context, id string) error
	Grow(ctx context.Context, id string, required, limit int64) (volume.Volume, error)
	Modify(ctx context.Context, id string, l volume.Limits) (volume.Volume, error)
	Get(id string) (volume.Volume, error)
	List(after string, limit int) []volume.Volume
	Snapshot(id string) (volume.Volume, error)
	Snapshots(source, after string, limit int) []volume.Volume

	// Trouble returns what is wrong with each backend; nil: nothing.
	Trouble() map[string]error
	Available(volume.Request) (int64, error)
}

// Publisher puts volumes on paths. It is a publish.Publisher.
type Publisher interface {
	stager
	Publish(ctx context.Context, id, target string, u publish.Use) error
	Unpublish(ctx context.Context, id, target string) error
	Stats(id, path string) (volume.Volume, publish.Usage, error)
}

// stager is the part of a Publisher that is about a volume on this node, whatever pods use it.
type stager interface {
	Stage(ctx context.Context, id, path string, u publish.Use) error
	Unstage(ctx context.Context, id, path string) error
	GrowStaged(ctx context.Context, id string) (volume.Volume, error)
	GrowsStaged(volume.Volume) bool
}

// Attachments are the volumes that are attached to this node. It is an attach.Attachments.
type Attachments interface {
	Attach(ctx context.Context, id string, how attach.How) error
	Detach(ctx context.Context, id string) error
	Of(id string) (how attach.How, attached bool)

	// Most is how many volumes may be attached at a time; 0: as many as there are.
	Most() int64
}

// Limits puts the limits of volumes in force. It is a publish.Limits.
type Limits interface {
	Check(volume.Limits) error
	Enforce(ctx context.Context, id string) error
}

// Config of a Driver.
type Config struct {
	NodeID    string // the node's name
	InlineDir string // where inline volumes are staged, beneath kubelet's directory
	Version   string
	Volumes   Volumes
	Groups    Groups
	Publisher Publisher
	Attached  Attachments // nil: volumes are used without being attached
	Limits    Limits
	Copies    bool                       // snapshots and clones are announced, and groups: a backend has them
	Metadata  csi.SnapshotMetadataServer // nil: no volume of the node has blocks that snapshots share
	Traces    *trace.Provider            // makes spans of the calls; nil: none

	// VolumesMost is how many volumes pods of the node may use at a time, for schedulers to keep to where
	// volumes are not attached; 0: as many as there are.
	VolumesMost int64

	// InlineMost is how many bytes all inline volumes together may have; 0: they are refused.
	InlineMost int64

	// Own are the full names of methods that controllers of this process call, as UserAgent. That somebody
	// else calls them, too, is logged, and said in GetPluginInfo.
	Own []string

	// Calls is told about each call when it has ended. It may be nil.
	Calls func(method string, code codes.Code, took time.Duration)
	Log   *slog.Logger
}

// Driver serves the CSI services, each of which is a type of its own.
type Driver struct {
	cfg    Config
	others *others
}

// New returns a Driver. The node's name is checked: it becomes the value of a label.
func New(cfg Config) (*Driver, error) {
	if cfg.NodeID == "" || len(cfg.NodeID) > 63 {
		return nil, errors.New("node name must have 1 to 63 characters: it is the value of a topology label")
	}
	if cfg.Calls == nil {
		cfg.Calls = func(string, codes.Code, time.Duration) {}
	}
	return &Driver{cfg: cfg, others: &others{own: cfg.Own, log: cfg.Log}}, nil
}

// Server returns a gRPC server with the services.
func (d *Driver) Server() *grpc.Server {
	here := local{
		node:      d.cfg.NodeID,
		reachable: []*csi.Topology{topologyOf(d.cfg.NodeID)},
		volumes:   d.cfg.Volumes,
		groups:    d.cfg.Groups,
		publisher: d.cfg.Publisher,
		attached:  d.cfg.Attached,
	}

	s := grpc.NewServer(append(d.cfg.Traces.ServerOptions(),
		grpc.UnaryInterceptor(d.observe),
		grpc.StreamInterceptor(d.observeStream),
	)...)
	csi.RegisterIdentityServer(s, &identityService{
		version:  d.cfg.Version,
		copies:   d.cfg.Copies,
		metadata: d.cfg.Metadata != nil,
		others:   d.others,
	})
	if d.cfg.Metadata != nil {
		csi.RegisterSnapshotMetadataServer(s, d.cfg.Metadata)
	}
	csi.RegisterControllerServer(s, &controllerService{
		local:  here,
		limits: d.cfg.Limits,
		copies: d.cfg.Copies,
	})
	csi.RegisterGroupControllerServer(s, &groupService{local: here})
	csi.RegisterNodeServer(s, &nodeService{
		local:       here,
		inlineDir:   d.cfg.InlineDir,
		inlineMost:  d.cfg.InlineMost,
		volumesMost: d.cfg.VolumesMost,
	})
	return s
}

// observe gives errors their gRPC codes and logs each call once: by name, duration and error, never what it
// carries (secrets and tokens of pods).
func (d *Driver) observe(
	ctx context.Context,
	req any,
	info *grpc.UnaryServerInfo,
	next grpc.UnaryHandler,
) (any, error) {
	d.others.note(ctx, info.FullMethod)
	began := time.Now()
	resp, err := next(ctx, req)
	if err = d.ended(info.FullMethod, began, err); err != nil {
		return nil, err
	}
	return resp, nil
}

// observeStream is observe for calls with a stream of answers.
func (d *Driver) observeStream(
	service any,
	stream grpc.ServerStream,
	info *grpc.StreamServerInfo,
	next grpc.StreamHandler,
) error {
	began := time.Now()
	return d.ended(info.FullMethod, began, next(service, stream))
}

func (d *Driver) ended(method string, began time.Time, err error) error {
	took := time.Since(began)
	err = toStatus(err)
	code := status.Code(err)
	d.cfg.Calls(method, code, took)
	if err != nil {
		d.cfg.Log.Warn("call fails", "method", method, "code", code, "duration", took, "err", err)
		return err
	}

	d.cfg.Log.Debug("call", "method", method, "duration", took)
	return nil
}

// local is what the controller services and the node service share: the volumes of this node.
type local struct {
	node      string
	reachable []*csi.Topology // from where; the same in every answer
	volumes   Volumes
	groups    Groups
	publisher Publisher
	attached  Attachments // nil: volumes are used without being attached
}

// howAttached returns how a volume is attached that is about to be used; volume.ErrNotAttached if it has to
// be before.
func (l local) howAttached(id string) (attach.How, error) {
	if l.attached == nil {
		return attach.How{}, nil
	}
	how, ok := l.attached.Of(id)
	if !ok {
		return how, fmt.Errorf("%w: %s", volume.ErrNotAttached, id)
	}
	return how, nil
}

// nodesOf returns the nodes that a volume is attached to.
func (l local) nodesOf(id string) []string {
	if l.attached == nil {
		return nil
	}
	if _, ok := l.attached.Of(id); ok {
		return []string{l.node}
	}
	return nil
}

// get returns a volume. An ID that is not of this driver names none.
func (l local) get(id string) (volume.Volume, error) {
	if volume.CheckID(id) != nil {
		return volume.Volume{}, fmt.Errorf("%w: %q", volume.ErrNotFound, id)
	}
	return l.volumes.Get(id)
}

func (l local) toCSI(v volume.Volume) *csi.Volume {
	return &csi.Volume{
		VolumeId:           v.ID,
		CapacityBytes:      v.Size,
		AccessibleTopology: l.reachable,
		VolumeContext:      map[string]string{"backend": v.Backend},
		ContentSource:      sourceToCSI(v.Source),
	}
}

// commonOf returns what all volumes of a backend have in common, topology and context, encoded. To encode
// these maps for each volume takes more than twice as long as the rest of a page. A message that is encoded
// in two parts is the same to who decodes it.
func (l local) commonOf(backend string) ([]byte, error) {
	return proto.Marshal(l.toCSI(volume.Volume{Spec: volume.Spec{Backend: backend}}))
}

// topologyOf is where the volumes of a node can be reached.
func topologyOf(node string) *csi.Topology {
	return &csi.Topology{Segments: map[string]string{TopologyKey: node}}
}

// checkHere returns an error, after which callers choose another node, if what is requested is not for this
// one.
func (l local) checkHere(r *csi.TopologyRequirement) error {
	if len(r.GetRequisite()) == 0 || slices.ContainsFunc(r.GetRequisite(), l.here) {
		return nil
	}
	return fmt.Errorf("%w: volumes are made on node %s, which is not among the requisite topologies",
		volume.ErrFull, l.node)
}

// here reports whether a topology includes this node. Segments with keys of other drivers are not looked at.
func (l local) here(t *csi.Topology) bool {
	node, ok := t.GetSegments()[TopologyKey]
	return !ok || node == l.node
}
