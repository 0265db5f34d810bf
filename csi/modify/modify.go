// Package modify gives the volumes of a node the attributes of the VolumeAttributesClass that their claims
// name, the way external-resizer does: first the volume, then its object, then the claim's status.
//
// A claim's modifyVolumeStatus says which class its volume is being given. One that is infeasible may be
// replaced by another, or given up.
package modify

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
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/refusal"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/queue"
	"github.com/trivet-node/trivet/internal/kube/storage"
)

// Controller is the CSI controller service, as far as it is needed here.
type Controller interface {
	ControllerModifyVolume(
		ctx context.Context,
		r *csi.ControllerModifyVolumeRequest,
		opts ...grpc.CallOption,
	) (*csi.ControllerModifyVolumeResponse, error)
}

// Config of a Modifier.
type Config struct {
	Local   objects.Local
	Objects *objects.Watched
	Client  *kube.Client
	CSI     Controller
	Events  *event.Recorder
	Log     *slog.Logger
}

// Modifier changes the attributes of the volumes of one node.
type Modifier struct {
	cfg     Config
	claims  kube.Objects[corev1.PersistentVolumeClaim]
	volumes kube.Objects[corev1.PersistentVolume]
	classes kube.Objects[storagev1.VolumeAttributesClass]
	queue   *queue.Queue
	refused refusal.Refusals[string]
}

// New returns a Modifier. It has to be called before Objects runs.
func New(cfg Config) *Modifier {
	m := &Modifier{
		cfg:     cfg,
		claims:  kube.Claims(cfg.Client),
		volumes: kube.Volumes(cfg.Client),
		classes: storage.AttributesClasses(cfg.Client),
		queue:   objects.NewQueue(),
	}
	cfg.Objects.Claims.Enqueue(m.queue)
	return m
}

// Run works until ctx ends, and returns when that work is done.
func (m *Modifier) Run(ctx context.Context) { objects.Work(ctx, m.queue, m.cfg.Log, m.look) }

// look brings the attributes of one claim's volume a step further.
func (m *Modifier) look(ctx context.Context, key string) error {
	c := m.cfg.Objects.Claims.Get(key)
	if c == nil || c.Spec.VolumeName == "" {
		return nil
	}

	f := facts{
		local:   m.cfg.Local,
		claim:   c,
		volume:  m.cfg.Objects.Volumes.Get(c.Spec.VolumeName),
		refused: m.refused.Of(c.UID),
		now:     time.Now(),
	}

	d := decide(f)
	m.cfg.Log.Debug("modify", "claim", key, "action", string(d.action), "reason", d.reason)
	switch d.action {
	case change:
		return m.change(ctx, c, f.volume, d.class)
	case resume:
		return m.resume(ctx, c, f.volume, d.class)
	case forget:
		m.event(c, corev1.EventTypeNormal, "VolumeModifyCanceled", "Cancelled modify.")
		_, err := m.patchStatus(ctx, c, progress{})
		return err
	case wait:
		m.queue.AddAfter(key, d.after)
	case ignore:
	}

	return nil
}

// change begins to give a volume the attributes of a class. The status says so before the driver is called.
func (m *Modifier) change(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	pv *corev1.PersistentVolume,
	name string,
) error {
	class, err := m.class(ctx, c, name)
	if apierrors.IsNotFound(err) {
		return m.pending(ctx, c, err)
	}
	if err != nil {
		return err
	}

	c, err = m.patchStatus(ctx, c, progress{
		class:  name,
		status: corev1.PersistentVolumeClaimModifyVolumeInProgress,
	})
	if err != nil {
		return err
	}

	m.event(c, corev1.EventTypeNormal, "VolumeModify",
		fmt.Sprintf("external resizer is modifying volume %s with vac %s", c.Name, name))
	return m.call(ctx, c, pv, class)
}

// resume repeats the call for a class that the status has already.
func (m *Modifier) resume(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	pv *corev1.PersistentVolume,
	name string,
) error {
	class, err := m.class(ctx, c, name)
	if err != nil {
		return err
	}
	return m.call(ctx, c, pv, class)
}

// class asks the API server itself: claims seldom change their class.
func (m *Modifier) class(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	name string,
) (*storagev1.VolumeAttributesClass, error) {
	class, err := m.classes.Get(ctx, "", name)
	if apierrors.IsNotFound(err) {
		m.event(c, corev1.EventTypeWarning, "VolumeModifyFailed",
			fmt.Sprintf("VAC %q does not exist.", name))
	}
	if err != nil {
		return nil, fmt.Errorf("read VolumeAttributesClass %s of claim %s/%s: %w",
			name, c.Namespace, c.Name, err)
	}
	return class, nil
}

// pending says in the status that a claim waits for its class. It is looked for again, later each time.
func (m *Modifier) pending(ctx context.Context, c *corev1.PersistentVolumeClaim, cause error) error {
	p := progress{status: corev1.PersistentVolumeClaimModifyVolumePending, keep: true}
	if s := c.Status.ModifyVolumeStatus; s != nil {
		if s.Status == p.status {
			return cause
		}
		p.class = s.TargetVolumeAttributesClassName
	}
	if _, err := m.patchStatus(ctx, c, p); err != nil {
		return err
	}
	return cause
}

// call calls the driver, and writes down what came of it.
func (m *Modifier) call(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	pv *corev1.PersistentVolume,
	class *storagev1.VolumeAttributesClass,
) error {
	err := m.modify(ctx, pv, class)
	if err != nil {
		return m.failed(ctx, c, class.Name, err)
	}

	patch := fmt.Sprintf(`{"metadata":{"uid":%q},"spec":{"volumeAttributesClassName":%q}}`,
		pv.UID, class.Name)
	_, err = m.volumes.Patch(ctx, "", pv.Name, types.MergePatchType, []byte(patch))
	if err != nil {
		return fmt.Errorf("set attributes class of PersistentVolume %s: %w", pv.Name, err)
	}
	if _, err := m.patchStatus(ctx, c, progress{class: class.Name, done: true}); err != nil {
		return err
	}

	m.event(c, corev1.EventTypeNormal, "VolumeModifySuccessful",
		fmt.Sprintf("external resizer modified volume %s with vac %s successfully", c.Name, class.Name))
	return nil
}

func (m *Modifier) modify(
	ctx context.Context,
	pv *corev1.PersistentVolume,
	class *storagev1.VolumeAttributesClass,
) error {
	if class.DriverName != m.cfg.Local.Driver {
		return status.Errorf(codes.InvalidArgument, "VolumeAttributesClass %s is of driver %s",
			class.Name, class.DriverName)
	}
	_, err := m.cfg.CSI.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{
		VolumeId:          pv.Spec.CSI.VolumeHandle,
		MutableParameters: class.Parameters,
	})
	return err
}

// refusedFor is how long a class that is infeasible is not tried again, if the user does not ask for another.
const refusedFor = time.Minute

// failed reports the failure to the user. A class that is infeasible is marked so, and then another one may
// be asked for; any other failure is tried again.
func (m *Modifier) failed(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	class string,
	cause error,
) error {
	m.event(c, corev1.EventTypeWarning, "VolumeModifyFailed", cause.Error())
	p := progress{
		class:  class,
		status: corev1.PersistentVolumeClaimModifyVolumeInProgress,
		errors: cause,
	}
	infeasible := status.Code(cause) == codes.InvalidArgument
	if infeasible {
		p.status = corev1.PersistentVolumeClaimModifyVolumeInfeasible
	}

	if _, err := m.patchStatus(ctx, c, p); err != nil {
		return err
	}
	if !infeasible {
		return fmt.Errorf("modify the volume of claim %s/%s: %w", c.Namespace, c.Name, cause)
	}

	m.refused.Add(c.UID, class, time.Now(), refusedFor)
	m.queue.AddAfter(kube.Key(c), refusedFor)
	return nil
}

func (m *Modifier) event(c *corev1.PersistentVolumeClaim, kind, reason, message string) {
	m.cfg.Events.Record(event.Object("PersistentVolumeClaim", &c.ObjectMeta), kind, reason, message)
}
