package snapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/objects"
)

// claim writes down that the snapshot of a content is on this node, and that it may be made from now on. The
// change comes as an event.
func (s *Snapshotter) claim(ctx context.Context, c *snapshotv1.VolumeSnapshotContent) error {
	annotations := map[string]any{s.cfg.Local.TopologyKey: s.cfg.Local.Node}
	if handleIn(c) == "" && !isMember(c) {
		annotations[annCreating] = "yes"
	}
	return s.annotate(ctx, c, annotations)
}

func (s *Snapshotter) annotate(
	ctx context.Context,
	c *snapshotv1.VolumeSnapshotContent,
	annotations map[string]any,
) error {
	return s.patch(ctx, c, map[string]any{"metadata": map[string]any{
		"uid":             c.UID,
		"resourceVersion": c.ResourceVersion,
		"annotations":     annotations,
	}})
}

// patch merges a change into a content, or into its status. One that has gone meanwhile is success.
func (s *Snapshotter) patch(
	ctx context.Context,
	c *snapshotv1.VolumeSnapshotContent,
	change map[string]any,
	subresource ...string,
) error {
	data, err := json.Marshal(change)
	if err != nil {
		return err
	}
	_, err = s.contents.Patch(ctx, "", c.Name, types.MergePatchType, data, subresource...)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("change VolumeSnapshotContent %s: %w", c.Name, err)
	}
	return nil
}

// create makes the snapshot of a content, or finds that it was made, and says so in the status.
func (s *Snapshotter) create(ctx context.Context, c *snapshotv1.VolumeSnapshotContent) error {
	made, err := s.make(ctx, c)
	if err != nil {
		s.event(c, "SnapshotCreationFailed", "Failed to create snapshot: "+status.Convert(err).Message())
		return s.notMade(ctx, c, err)
	}
	if err := s.patchStatus(ctx, c, made); err != nil {
		return err
	}
	s.cfg.Log.Info("made a snapshot", "content", c.Name, "snapshot", made.GetSnapshotId())

	// Others wait for this to go before they delete.
	return s.patch(ctx, c, map[string]any{"metadata": map[string]any{
		"uid":         c.UID,
		"annotations": map[string]any{annCreating: nil},
	}})
}

// make calls the driver. The name follows from the VolumeSnapshot, so that a repeated call finds the snapshot
// of the first.
func (s *Snapshotter) make(ctx context.Context, c *snapshotv1.VolumeSnapshotContent) (*csi.Snapshot, error) {
	parameters, err := s.parameters(ctx, c)
	if err != nil {
		return nil, err
	}
	resp, err := s.cfg.CSI.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{
		Name:           "snapshot-" + string(c.Spec.VolumeSnapshotRef.UID),
		SourceVolumeId: *c.Spec.Source.VolumeHandle,
		Parameters:     parameters,
	})
	return resp.GetSnapshot(), err
}

// parameters are those of the content's class that are the driver's.
func (s *Snapshotter) parameters(
	ctx context.Context,
	c *snapshotv1.VolumeSnapshotContent,
) (map[string]string, error) {
	if c.Spec.VolumeSnapshotClassName == nil {
		return nil, nil
	}

	class, err := s.classes.Get(ctx, "", *c.Spec.VolumeSnapshotClassName)
	if apierrors.IsNotFound(err) {
		// Deleted since: the content was made when it was there.
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read VolumeSnapshotClass %s: %w", *c.Spec.VolumeSnapshotClassName, err)
	}

	own := maps.Clone(class.Parameters)
	maps.DeleteFunc(own, func(key, _ string) bool { return strings.HasPrefix(key, objects.ParameterPrefix) })
	return own, nil
}

// patchStatus says what the driver says of a snapshot.
func (s *Snapshotter) patchStatus(
	ctx context.Context,
	c *snapshotv1.VolumeSnapshotContent,
	made *csi.Snapshot,
) error {
	now := map[string]any{
		"snapshotHandle": made.GetSnapshotId(),
		"creationTime":   made.GetCreationTime().AsTime().UnixNano(),
		"restoreSize":    made.GetSizeBytes(),
		"readyToUse":     made.GetReadyToUse(),
		"error":          nil,
	}
	if made.GetGroupSnapshotId() != "" {
		now["volumeGroupSnapshotHandle"] = made.GetGroupSnapshotId()
	}

	change := map[string]any{"metadata": map[string]any{"uid": c.UID}, "status": now}
	return s.patch(ctx, c, change, "status")
}

// notMade says why there is no snapshot, and returns that, too.
func (s *Snapshotter) notMade(ctx context.Context, c *snapshotv1.VolumeSnapshotContent, cause error) error {
	message := status.Convert(cause).Message()
	cause = fmt.Errorf("snapshot of VolumeSnapshotContent %s: %w", c.Name, cause)
	if c.Status != nil && c.Status.Error != nil && c.Status.Error.Message != nil &&
		*c.Status.Error.Message == message {
		return cause
	}

	change := map[string]any{
		"metadata": map[string]any{"uid": c.UID},
		"status": map[string]any{
			"readyToUse": false,
			"error":      map[string]any{"message": message, "time": metav1.Now()},
		},
	}
	if err := s.patch(ctx, c, change, "status"); err != nil {
		return err
	}

	return cause
}

// find looks for a snapshot that somebody else has made, and takes its content over if it is here.
func (s *Snapshotter) find(ctx context.Context, c *snapshotv1.VolumeSnapshotContent) error {
	request := &csi.GetSnapshotRequest{SnapshotId: handleIn(c)}
	resp, err := s.cfg.CSI.GetSnapshot(ctx, request)
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for snapshot %s: %w", request.GetSnapshotId(), err)
	}

	if c.Annotations[s.cfg.Local.TopologyKey] == "" {
		return s.claim(ctx, c)
	}

	return s.patchStatus(ctx, c, resp.GetSnapshot())
}

// destroy deletes the snapshot of a content, and lets the content go. It asks the API server itself, not the
// cache, whether that is to be done: it cannot be undone.
func (s *Snapshotter) destroy(ctx context.Context, cached *snapshotv1.VolumeSnapshotContent) error {
	c, err := s.contents.Get(ctx, "", cached.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read VolumeSnapshotContent %s: %w", cached.Name, err)
	}

	if c.UID != cached.UID || decide(s.facts(c)) != destroy {
		// The change comes as an event.
		return nil
	}

	if err := s.deleteSnapshot(ctx, c); err != nil {
		s.event(c, "SnapshotDeleteError", "Failed to delete snapshot: "+status.Convert(err).Message())
		return fmt.Errorf("delete the snapshot of VolumeSnapshotContent %s: %w", c.Name, err)
	}

	s.cfg.Log.Info("deleted a snapshot", "content", c.Name)
	return s.removeFinalizer(ctx, c)
}

func (s *Snapshotter) deleteSnapshot(ctx context.Context, c *snapshotv1.VolumeSnapshotContent) error {
	handle, err := s.handleOf(ctx, c)
	if err != nil || handle == "" {
		return err
	}
	_, err = s.cfg.CSI.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: handle})
	return err
}

// handleOf returns the ID of the snapshot of a content; "" if there is none. One that may have been made, and
// never became known, is learned by repeating the call that may have made it.
func (s *Snapshotter) handleOf(
	ctx context.Context,
	c *snapshotv1.VolumeSnapshotContent,
) (string, error) {
	if handle := handleIn(c); handle != "" {
		return handle, nil
	}

	made, err := s.make(ctx, c)
	switch status.Code(err) {
	case codes.OK:
		return made.GetSnapshotId(), nil
	case codes.NotFound, codes.InvalidArgument, codes.ResourceExhausted:
		return "", nil
	}
	return "", err
}

// removeFinalizer takes the finalizer off the very version whose list of finalizers was read.
func (s *Snapshotter) removeFinalizer(ctx context.Context, c *snapshotv1.VolumeSnapshotContent) error {
	others := slices.DeleteFunc(slices.Clone(c.Finalizers), func(f string) bool { return f == finalizer })
	return s.patch(ctx, c, map[string]any{"metadata": map[string]any{
		"uid":             c.UID,
		"resourceVersion": c.ResourceVersion,
		"finalizers":      others,
	}})
}
