// Package snapshot makes the snapshots that VolumeSnapshotContents ask for and deletes those that nobody
// wants any more, as the sidecar csi-snapshotter does: for the volumes of one node, in whose driver they are.
// What VolumeSnapshots become contents is up to the snapshot controller of Kubernetes, which is installed
// once in a cluster; without it there are no such objects, and nothing is done here.
package snapshot

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/queue"
	"github.com/trivet-node/trivet/internal/retry"
)

// Controller is the CSI controller service, as far as it is needed here.
type Controller interface {
	CreateSnapshot(
		ctx context.Context,
		r *csi.CreateSnapshotRequest,
		opts ...grpc.CallOption,
	) (*csi.CreateSnapshotResponse, error)
	DeleteSnapshot(
		ctx context.Context,
		r *csi.DeleteSnapshotRequest,
		opts ...grpc.CallOption,
	) (*csi.DeleteSnapshotResponse, error)
	GetSnapshot(
		ctx context.Context,
		r *csi.GetSnapshotRequest,
		opts ...grpc.CallOption,
	) (*csi.GetSnapshotResponse, error)
}

// Config of a Snapshotter.
type Config struct {
	Local   objects.Local
	Objects *objects.Watched
	Client  *kube.Client
	CSI     Controller
	Events  *event.Recorder
	Log     *slog.Logger
}

// Snapshotter serves the snapshots of one node.
type Snapshotter struct {
	cfg      Config
	contents kube.Objects[snapshotv1.VolumeSnapshotContent]
	classes  kube.Objects[snapshotv1.VolumeSnapshotClass]
	watched  *kube.Watch[snapshotv1.VolumeSnapshotContent]
	queue    *queue.Queue
}

// absent are the pauses between looks for kinds that nobody has installed.
var absent = retry.Backoff{First: time.Second, Max: time.Minute}

// New returns a Snapshotter. It has to be called before Objects runs.
func New(cfg Config) *Snapshotter {
	s := &Snapshotter{
		cfg:      cfg,
		contents: objects.SnapshotContents(cfg.Client),
		classes:  objects.SnapshotClasses(cfg.Client),
		queue:    objects.NewQueue(),
	}

	s.watched = kube.NewWatch(s.contents, kube.WatchConfig[snapshotv1.VolumeSnapshotContent]{
		Slim:  func(c *snapshotv1.VolumeSnapshotContent) { c.ManagedFields = nil },
		Index: sourceOf,
		Changed: func(before, now *snapshotv1.VolumeSnapshotContent) {
			if now == nil {
				now = before
			}
			s.queue.Add(now.Name)
		},
		Failed: s.failed,
		Retry:  absent,
	})

	// Whose a snapshot is says the object of its volume, which may be seen later.
	cfg.Objects.Volumes.OnChange(func(_, now *corev1.PersistentVolume) {
		if now == nil || now.Spec.CSI == nil {
			return
		}
		for _, c := range s.watched.By(now.Spec.CSI.VolumeHandle) {
			s.queue.Add(c.Name)
		}
	})

	return s
}

// sourceOf returns the handle of the volume that a snapshot is of, if it is known.
func sourceOf(c *snapshotv1.VolumeSnapshotContent) []string {
	if c.Spec.Source.VolumeHandle == nil {
		return nil
	}
	return []string{*c.Spec.Source.VolumeHandle}
}

// Handles returns the IDs of the snapshots that contents stand for, on whatever node. known is false before
// all are listed, and where nobody has installed the kind.
func (s *Snapshotter) Handles() (handles map[string]bool, known bool) {
	handles = map[string]bool{}
	for _, c := range s.watched.All() {
		if handle := handleIn(c); handle != "" && c.Spec.Driver == s.cfg.Local.Driver {
			handles[handle] = true
		}
	}
	return handles, s.watched.HasListed()
}

// failed logs why the contents cannot be watched. That nobody has installed them is no failure.
func (s *Snapshotter) failed(err error) {
	if !apierrors.IsNotFound(err) {
		s.cfg.Log.Warn("cannot watch snapshots", "err", err)
	}
}

// Run works until ctx ends, and returns when that work is done.
func (s *Snapshotter) Run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { s.watched.Run(ctx) })
	group.Go(func() {
		objects.AwaitServed(ctx, s.cfg.Client, s.cfg.Log, snapshotv1.SchemeGroupVersion)
	})

	objects.Work(ctx, s.queue, s.cfg.Log, s.look)
	group.Wait()
}

// look brings one content a step further.
func (s *Snapshotter) look(ctx context.Context, name string) error {
	c := s.watched.Get(name)
	if c == nil {
		return nil
	}

	d := decide(s.facts(c))
	s.cfg.Log.Debug("snapshot", "content", name, "action", string(d))
	switch d {
	case claim:
		return s.claim(ctx, c)
	case create:
		return s.create(ctx, c)
	case find:
		return s.find(ctx, c)
	case destroy:
		return s.destroy(ctx, c)
	case release:
		return s.removeFinalizer(ctx, c)
	case ignore:
	}

	return nil
}

func (s *Snapshotter) facts(c *snapshotv1.VolumeSnapshotContent) facts {
	f := facts{local: s.cfg.Local, content: c}
	for _, handle := range sourceOf(c) {
		for _, pv := range s.cfg.Objects.Volumes.By(handle) {
			f.sourceHere = f.sourceHere || s.cfg.Local.Holds(pv)
		}
	}
	return f
}

// event records an event about a content.
func (s *Snapshotter) event(c *snapshotv1.VolumeSnapshotContent, reason, message string) {
	about := event.Object("VolumeSnapshotContent", &c.ObjectMeta)
	about.APIVersion = snapshotv1.SchemeGroupVersion.String()
	s.cfg.Events.Record(about, corev1.EventTypeWarning, reason, message)
}
