// Package groupsnapshot makes the group snapshots that VolumeGroupSnapshotContents ask for and deletes those
// that nobody wants any more, as the sidecar csi-snapshotter does: on the node that has the volumes, in whose
// driver they are. VolumeGroupSnapshots become contents, and the snapshots of a group VolumeSnapshots, by the
// snapshot controller of Kubernetes (with its feature gate CSIVolumeGroupSnapshot); without it there are no
// such objects, and nothing is done here.
package groupsnapshot

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/queue"
	"github.com/trivet-node/trivet/internal/retry"
)

// Controller is the CSI group controller service, as far as it is needed here.
type Controller interface {
	CreateVolumeGroupSnapshot(
		ctx context.Context,
		r *csi.CreateVolumeGroupSnapshotRequest,
		opts ...grpc.CallOption,
	) (*csi.CreateVolumeGroupSnapshotResponse, error)
	DeleteVolumeGroupSnapshot(
		ctx context.Context,
		r *csi.DeleteVolumeGroupSnapshotRequest,
		opts ...grpc.CallOption,
	) (*csi.DeleteVolumeGroupSnapshotResponse, error)
	GetVolumeGroupSnapshot(
		ctx context.Context,
		r *csi.GetVolumeGroupSnapshotRequest,
		opts ...grpc.CallOption,
	) (*csi.GetVolumeGroupSnapshotResponse, error)
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

// Snapshotter serves the group snapshots of one node.
type Snapshotter struct {
	cfg      Config
	contents kube.Objects[groupv1.VolumeGroupSnapshotContent]
	classes  kube.Objects[groupv1.VolumeGroupSnapshotClass]
	owners   kube.Objects[groupv1.VolumeGroupSnapshot]
	watched  *kube.Watch[groupv1.VolumeGroupSnapshotContent]
	queue    *queue.Queue
}

// askAgain is how long a content that was deleted waits until it is asked again whether its
// VolumeGroupSnapshot is there. In general the snapshot controller says earlier that it is not.
const askAgain = time.Minute

// absent are the pauses between looks for kinds that nobody has installed.
var absent = retry.Backoff{First: time.Second, Max: time.Minute}

// New returns a Snapshotter. It has to be called before Objects runs.
func New(cfg Config) *Snapshotter {
	s := &Snapshotter{
		cfg:      cfg,
		contents: objects.GroupSnapshotContents(cfg.Client),
		classes:  objects.GroupSnapshotClasses(cfg.Client),
		owners:   objects.GroupSnapshots(cfg.Client),
		queue:    objects.NewQueue(),
	}

	s.watched = kube.NewWatch(s.contents, kube.WatchConfig[groupv1.VolumeGroupSnapshotContent]{
		Slim: func(c *groupv1.VolumeGroupSnapshotContent) { c.ManagedFields = nil },
		Index: func(c *groupv1.VolumeGroupSnapshotContent) []string {
			return c.Spec.Source.VolumeHandles
		},
		Changed: func(before, now *groupv1.VolumeGroupSnapshotContent) {
			if now == nil {
				now = before
			}
			s.queue.Add(now.Name)
		},
		Failed: s.failed,
		Retry:  absent,
	})

	// Whose a group is say the objects of its volumes, which may be seen later.
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

// failed logs why the contents cannot be watched. That nobody has installed them is no failure.
func (s *Snapshotter) failed(err error) {
	if !apierrors.IsNotFound(err) {
		s.cfg.Log.Warn("cannot watch group snapshots", "err", err)
	}
}

// Run works until ctx ends, and returns when that work is done.
func (s *Snapshotter) Run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { s.watched.Run(ctx) })
	group.Go(func() {
		objects.AwaitServed(ctx, s.cfg.Client, s.cfg.Log, groupv1.SchemeGroupVersion)
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

	d, err := s.decide(ctx, c)
	if err != nil {
		return err
	}
	s.cfg.Log.Debug("group snapshot", "content", name, "action", string(d))
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
	case ask:
		s.queue.AddAfter(name, askAgain)
	case ignore:
	}

	return nil
}

func (s *Snapshotter) facts(c *groupv1.VolumeGroupSnapshotContent) facts {
	f := facts{local: s.cfg.Local, content: c}
	if handles := c.Spec.Source.VolumeHandles; len(handles) > 0 {
		f.firstHere = s.isHere(handles[0])
	}
	return f
}

// decide asks the API server for what cannot be known from a content, where that is needed.
func (s *Snapshotter) decide(ctx context.Context, c *groupv1.VolumeGroupSnapshotContent) (action, error) {
	f := s.facts(c)
	if decide(f) == ask {
		var err error
		if f.orphan, err = s.isOrphan(ctx, c); err != nil {
			return ignore, err
		}
	}
	return decide(f), nil
}

// isOrphan reports whether the VolumeGroupSnapshot of a content is gone.
func (s *Snapshotter) isOrphan(ctx context.Context, c *groupv1.VolumeGroupSnapshotContent) (bool, error) {
	ref := c.Spec.VolumeGroupSnapshotRef
	owner, err := s.owners.Metadata(ctx, ref.Namespace, ref.Name)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read VolumeGroupSnapshot %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	return owner.UID != ref.UID, nil
}

// isHere reports whether a volume is on this node.
func (s *Snapshotter) isHere(handle string) bool {
	return slices.ContainsFunc(s.cfg.Objects.Volumes.By(handle), s.cfg.Local.Holds)
}

// event records an event about a content.
func (s *Snapshotter) event(c *groupv1.VolumeGroupSnapshotContent, reason, message string) {
	about := event.Object("VolumeGroupSnapshotContent", &c.ObjectMeta)
	about.APIVersion = groupv1.SchemeGroupVersion.String()
	s.cfg.Events.Record(about, corev1.EventTypeWarning, reason, message)
}
