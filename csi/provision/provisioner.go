// Package provision makes the volumes that claims ask for and deletes those that nobody claims any more. Each
// node has a provisioner, beside the CSI driver of that node: it serves the claims whose selected-node is its
// own and the volumes whose topology is its own, so that no leader is needed and no claim waits for another
// node. To the Kubernetes API and to the driver (over CSI) it behaves as external-provisioner does.
package provision

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/refusal"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/queue"
	"github.com/trivet-node/trivet/internal/retry"
)

// Controller is the CSI controller service, as far as it is needed here.
type Controller interface {
	CreateVolume(
		ctx context.Context,
		r *csi.CreateVolumeRequest,
		opts ...grpc.CallOption,
	) (*csi.CreateVolumeResponse, error)
	DeleteVolume(
		ctx context.Context,
		r *csi.DeleteVolumeRequest,
		opts ...grpc.CallOption,
	) (*csi.DeleteVolumeResponse, error)
	GetCapacity(
		ctx context.Context,
		r *csi.GetCapacityRequest,
		opts ...grpc.CallOption,
	) (*csi.GetCapacityResponse, error)
}

// Config of a Provisioner.
type Config struct {
	Dir     string // for records of volumes that have no object yet
	Local   objects.Local
	Objects *objects.Watched
	Client  *kube.Client
	CSI     Controller
	Events  *event.Recorder
	Log     *slog.Logger
}

// Provisioner serves the claims and volumes of one node.
type Provisioner struct {
	cfg         Config
	claims      kube.Objects[corev1.PersistentVolumeClaim]
	volumes     kube.Objects[corev1.PersistentVolume]
	nodes       kube.Objects[corev1.Node]
	sources     *sources
	attributes  *attributes
	claimQueue  *queue.Queue
	volumeQueue *queue.Queue
	intents     *intents
	full        refusal.Refusals[struct{}] // this node had no room for a claim
}

// New returns a Provisioner with the intents of an earlier process. It has to be called before Objects runs.
func New(cfg Config) (*Provisioner, error) {
	intents, unreadable, err := openIntents(cfg.Dir)
	if err != nil {
		return nil, err
	}

	for _, t := range unreadable {
		cfg.Log.Error("record cannot be read and is set aside",
			"record", t.Name, "kept_as", t.Moved, "err", t.Err)
	}

	p := &Provisioner{
		cfg:         cfg,
		claims:      kube.Claims(cfg.Client),
		volumes:     kube.Volumes(cfg.Client),
		nodes:       kube.Nodes(cfg.Client),
		sources:     newSources(cfg.Local, cfg.Client),
		attributes:  newAttributes(cfg.Local, cfg.Client),
		claimQueue:  objects.NewQueue(),
		volumeQueue: objects.NewQueue(),
		intents:     intents,
	}

	// Every change is a hint to look at the object, or at all claims when something changed that all depend
	// on: a class, or that the driver left a node for which claims are selected.
	cfg.Objects.Claims.Enqueue(p.claimQueue)
	cfg.Objects.Volumes.Enqueue(p.volumeQueue)
	cfg.Objects.Classes.OnChange(func(_, _ *storagev1.StorageClass) { p.enqueueClaims() })
	cfg.Objects.CSINodes.OnChange(func(before, now *storagev1.CSINode) {
		if cfg.Local.Runs(before) && !cfg.Local.Runs(now) {
			p.enqueueClaims()
		}
	})

	return p, nil
}

func (p *Provisioner) enqueueClaims() {
	for _, c := range p.cfg.Objects.Claims.All() {
		p.claimQueue.Add(kube.Key(c))
	}
}

// intentPeriod is how often intents are looked at again that nothing else led to the end of.
const intentPeriod = 5 * time.Minute

// Run works until ctx ends, and returns when that work is done.
func (p *Provisioner) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { objects.Work(ctx, p.claimQueue, p.cfg.Log, p.lookAtClaim) })
	group.Go(func() { objects.Work(ctx, p.volumeQueue, p.cfg.Log, p.lookAtVolume) })

	// An intent is worked on by the worker of its claim: nothing is done twice at the same time.
	for range retry.Every(ctx, intentPeriod) {
		for _, i := range p.intents.of("") {
			p.claimQueue.Add(i.key())
		}
	}
}

// event records an event about a claim.
func (p *Provisioner) event(c *corev1.PersistentVolumeClaim, kind, reason, format string, args ...any) {
	about := event.Object("PersistentVolumeClaim", &c.ObjectMeta)
	p.cfg.Events.Record(about, kind, reason, fmt.Sprintf(format, args...))
}

// fail records an event that says why there is no volume for a claim.
func (p *Provisioner) fail(c *corev1.PersistentVolumeClaim, format string, args ...any) {
	p.event(c, corev1.EventTypeWarning, "ProvisioningFailed", format, args...)
}

// volumeFailed records an event that says why a PersistentVolume is not deleted.
func (p *Provisioner) volumeFailed(pv *corev1.PersistentVolume, format string, args ...any) {
	about := event.Object("PersistentVolume", &pv.ObjectMeta)
	message := fmt.Sprintf(format, args...)
	p.cfg.Events.Record(about, corev1.EventTypeWarning, "VolumeFailedDelete", message)
}

// onlyIf are the conditions of a deletion: the object that was read, not another one of its name.
func onlyIf(uid types.UID) metav1.DeleteOptions {
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
}
