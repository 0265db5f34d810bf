// Package resize makes the volumes of a node as large as their claims ask, the way external-resizer does with
// RecoverVolumeExpansionFailure: first the volume, then the capacity of its object, then the claim's status,
// or the condition that makes kubelet grow the file system.
//
// A claim's status says how far its growth has come: allocatedResources is the size that the volume is being
// given, allocatedResourceStatuses the step that is next. A user whose growth is infeasible may ask for less.
package resize

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/refusal"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/queue"
)

// Controller is the CSI controller service, as far as it is needed here.
type Controller interface {
	ControllerExpandVolume(
		ctx context.Context,
		r *csi.ControllerExpandVolumeRequest,
		opts ...grpc.CallOption,
	) (*csi.ControllerExpandVolumeResponse, error)
}

// Config of a Resizer.
type Config struct {
	Local   objects.Local
	Objects *objects.Watched
	Client  *kube.Client
	CSI     Controller
	Events  *event.Recorder
	Log     *slog.Logger
}

// Resizer grows the volumes of one node.
type Resizer struct {
	cfg     Config
	claims  kube.Objects[corev1.PersistentVolumeClaim]
	volumes kube.Objects[corev1.PersistentVolume]
	queue   *queue.Queue
	refused refusal.Refusals[int64]
}

// New returns a Resizer.
func New(cfg Config) *Resizer {
	r := &Resizer{
		cfg:     cfg,
		claims:  kube.Claims(cfg.Client),
		volumes: kube.Volumes(cfg.Client),
		queue:   objects.NewQueue(),
	}
	cfg.Objects.Claims.Enqueue(r.queue)
	return r
}

// Run works until ctx ends, and returns when that work is done.
func (r *Resizer) Run(ctx context.Context) { objects.Work(ctx, r.queue, r.cfg.Log, r.look) }

// look brings the growth of one claim a step further.
func (r *Resizer) look(ctx context.Context, key string) error {
	c := r.cfg.Objects.Claims.Get(key)
	if c == nil || c.Spec.VolumeName == "" {
		return nil
	}

	f := facts{
		local:   r.cfg.Local,
		claim:   c,
		volume:  r.cfg.Objects.Volumes.Get(c.Spec.VolumeName),
		refused: r.refused.Of(c.UID),
		now:     time.Now(),
	}

	d := decide(f)
	r.cfg.Log.Debug("resize", "claim", key, "action", string(d.action), "reason", d.reason)
	switch d.action {
	case grow:
		return r.grow(ctx, c, f.volume, d.size)
	case reset:
		_, err := r.patchStatus(ctx, c, growth{})
		return err
	case wait:
		r.queue.AddAfter(key, d.after)
	case ignore:
	}

	return nil
}

// grow makes the volume larger. The status says so before, and what came of it afterwards.
func (r *Resizer) grow(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	pv *corev1.PersistentVolume,
	size resource.Quantity,
) error {
	r.event(c, corev1.EventTypeNormal, "Resizing", "External resizer is resizing volume "+pv.Name)
	c, err := r.patchStatus(ctx, c, growth{
		allocated: &size,
		step:      corev1.PersistentVolumeClaimControllerResizeInProgress,
		condition: corev1.PersistentVolumeClaimResizing,
	})
	if err != nil {
		return err
	}

	resp, err := r.cfg.CSI.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId:      pv.Spec.CSI.VolumeHandle,
		CapacityRange: &csi.CapacityRange{RequiredBytes: size.Value()},
	})
	if err != nil {
		return r.failed(ctx, c, pv, size, err)
	}

	return r.grown(ctx, c, pv, resp)
}

// grown writes down that the volume has grown, and by whom the file system does.
func (r *Resizer) grown(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	pv *corev1.PersistentVolume,
	resp *csi.ControllerExpandVolumeResponse,
) error {
	size := resource.NewQuantity(resp.GetCapacityBytes(), resource.BinarySI)
	patch := fmt.Sprintf(`{"metadata":{"uid":%q},"spec":{"capacity":{"storage":%q}}}`, pv.UID, size.String())
	_, err := r.volumes.Patch(ctx, "", pv.Name, types.MergePatchType, []byte(patch))
	if err != nil {
		return fmt.Errorf("set capacity of PersistentVolume %s: %w", pv.Name, err)
	}

	// Where the file system has grown with the volume, nothing is left to do.
	if !resp.GetNodeExpansionRequired() {
		if _, err := r.patchStatus(ctx, c, growth{capacity: size}); err != nil {
			return err
		}

		r.event(c, corev1.EventTypeNormal, "VolumeResizeSuccessful", "Resize volume succeeded")
		return nil
	}

	// Else kubelet, or the node agent, has the driver grow it, and completes the claim's status.
	_, err = r.patchStatus(ctx, c, growth{
		step:      corev1.PersistentVolumeClaimNodeResizePending,
		condition: corev1.PersistentVolumeClaimFileSystemResizePending,
		message:   "Waiting for user to (re-)start a pod to finish file system resize of volume on node.",
	})
	if err != nil {
		return err
	}

	r.event(c, corev1.EventTypeNormal, "FileSystemResizeRequired",
		"Require file system resize of volume on node")
	return nil
}

// refusedFor is how long a size that is infeasible is not asked for again, if the user does not ask for
// another one.
const refusedFor = time.Minute

// failed reports the failure to the user. A growth that is infeasible is marked so, and then a smaller one
// may be asked for; any other is tried again.
func (r *Resizer) failed(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	pv *corev1.PersistentVolume,
	size resource.Quantity,
	cause error,
) error {
	r.event(c, corev1.EventTypeWarning, "VolumeResizeFailed",
		fmt.Sprintf("resize volume %q by resizer %q failed: %v", pv.Name, r.cfg.Local.Driver, cause))
	switch status.Code(cause) {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound:
	default:
		return fmt.Errorf("grow volume of claim %s/%s: %w", c.Namespace, c.Name, cause)
	}

	_, err := r.patchStatus(ctx, c, growth{
		step:      corev1.PersistentVolumeClaimControllerResizeInfeasible,
		condition: corev1.PersistentVolumeClaimControllerResizeError,
		message:   status.Convert(cause).Message(),
	})
	if err != nil {
		return err
	}

	r.refused.Add(c.UID, size.Value(), time.Now(), refusedFor)
	r.queue.AddAfter(kube.Key(c), refusedFor)
	return nil
}

func (r *Resizer) event(c *corev1.PersistentVolumeClaim, kind, reason, message string) {
	r.cfg.Events.Record(event.Object("PersistentVolumeClaim", &c.ObjectMeta), kind, reason, message)
}
