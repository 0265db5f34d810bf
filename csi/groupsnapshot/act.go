package groupsnapshot

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/objects"
)

// claim writes down that the group of a content is on this node, and that it may be made from now on. The
// change comes as an event.
func (s *Snapshotter) claim(ctx context.Context, c *groupv1.VolumeGroupSnapshotContent) error {
	annotations := map[string]any{s.cfg.Local.TopologyKey: s.cfg.Local.Node}
	if handleIn(c) == "" {
		annotations[annCreating] = "yes"
	}
	return s.patch(ctx, c, map[string]any{"metadata": map[string]any{
		"uid":             c.UID,
		"resourceVersion": c.ResourceVersion,
		"annotations":     annotations,
	}})
}

// patch merges a change into a content, or into its status. One that has gone meanwhile is success.
func (s *Snapshotter) patch(
	ctx context.Context,
	c *groupv1.VolumeGroupSnapshotContent,
	change map[string]any,
	subresource ...string,
) error {
	data, err := json.Marshal(change)
	if err != nil {
		return err
	}
	_, err = s.contents.Patch(ctx, "", c.Name, types.MergePatchType, data, subresource...)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("change VolumeGroupSnapshotContent %s: %w", c.Name, err)
	}
	return nil
}

// create makes the group of a content, or finds that it was made, and says so in the status.
func (s *Snapshotter) create(ctx context.Context, c *groupv1.VolumeGroupSnapshotContent) error {
	made, err := s.make(ctx, c)
	if err != nil {
		message := "Failed to create group snapshot: " + status.Convert(err).Message()
		s.event(c, "GroupSnapshotCreationFailed", message)
		return s.notMade(ctx, c, err)
	}
	if err := s.patchStatus(ctx, c, made); err != nil {
		return err
	}
	s.cfg.Log.Info("made a group snapshot", "content", c.Name, "group", made.GetGroupSnapshotId(),
		"snapshots", len(made.GetSnapshots()))

	// Others wait for this to go before they delete.
	return s.patch(ctx, c, map[string]any{"metadata": map[string]any{
		"uid":         c.UID,
		"annotations": map[string]any{annCreating: nil},
	}})
}

// make calls the driver. The name follows from the VolumeGroupSnapshot, so that a repeated call finds the
// group of the first.
func (s *Snapshotter) make(
	ctx context.Context,
	c *groupv1.VolumeGroupSnapshotContent,
) (*csi.VolumeGroupSnapshot, error) {
	parameters, err := s.parameters(ctx, c)
	if err != nil {
		return nil, err
	}
	resp, err := s.cfg.CSI.CreateVolumeGroupSnapshot(ctx, &csi.CreateVolumeGroupSnapshotRequest{
		Name:            "groupsnapshot-" + string(c.Spec.VolumeGroupSnapshotRef.UID),
		SourceVolumeIds: c.Spec.Source.VolumeHandles,
		Parameters:      parameters,
	})
	if status.Code(err) == codes.NotFound {
		err = s.explain(c, err)
	}
	return resp.GetGroupSnapshot(), err
}

// explain says which volumes of a content are on other nodes, if that is why the driver does not find them.
func (s *Snapshotter) explain(c *groupv1.VolumeGroupSnapshotContent, cause error) error {
	elsewhere := slices.DeleteFunc(slices.Clone(c.Spec.Source.VolumeHandles), func(handle string) bool {
		return s.isHere(handle) || len(s.cfg.Objects.Volumes.By(handle)) == 0
	})
	if len(elsewhere) == 0 {
		return cause
	}
	return status.Errorf(codes.NotFound, "a group snapshot is of volumes of one node: %s are not on node %s",
		strings.Join(elsewhere, ", "), s.cfg.Local.Node)
}

// parameters are those of the content's class that are the driver's.
func (s *Snapshotter) parameters(
	ctx context.Context,
	c *groupv1.VolumeGroupSnapshotContent,
) (map[string]string, error) {
	if c.Spec.VolumeGroupSnapshotClassName == nil {
		return nil, nil
	}

	name := *c.Spec.VolumeGroupSnapshotClassName
	class, err := s.classes.Get(ctx, "", name)
	if apierrors.IsNotFound(err) {
		// Deleted since: the content was made when it was there.
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read VolumeGroupSnapshotClass %s: %w", name, err)
	}

	own := maps.Clone(class.Parameters)
	maps.DeleteFunc(own, func(key, _ string) bool { return strings.HasPrefix(key, objects.ParameterPrefix) })
	return own, nil
}

// patchStatus says what the driver says of a group.
func (s *Snapshotter) patchStatus(
	ctx context.Context,
	c *groupv1.VolumeGroupSnapshotContent,
	made *csi.VolumeGroupSnapshot,
) error {
	var list []map[string]any
	for _, one := range made.GetSnapshots() {
		list = append(list, map[string]any{
			"volumeHandle":   one.GetSourceVolumeId(),
			"snapshotHandle": one.GetSnapshotId(),
			"creationTime":   one.GetCreationTime().AsTime().UnixNano(),
			"restoreSize":    one.GetSizeBytes(),
			"readyToUse":     one.GetReadyToUse(),
		})
	}

	change := map[string]any{
		"metadata": map[string]any{"uid": c.UID},
		"status": map[string]any{
			"volumeGroupSnapshotHandle": made.GetGroupSnapshotId(),
			"creationTime":              metav1.NewTime(made.GetCreationTime().AsTime()),
			"readyToUse":                made.GetReadyToUse(),
			"volumeSnapshotInfoList":    list,
			"error":                     nil,
		},
	}
	return s.patch(ctx, c, change, "status")
}

// notMade says why there is no group, and returns that, too.
func (s *Snapshotter) notMade(
	ctx context.Context,
	c *groupv1.VolumeGroupSnapshotContent,
	cause error,
) error {
	message := status.Convert(cause).Message()
	cause = fmt.Errorf("group snapshot of VolumeGroupSnapshotContent %s: %w", c.Name, cause)
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

// find looks for a group that somebody else has made, and takes its content over if it is here.
func (s *Snapshotter) find(ctx context.Context, c *groupv1.VolumeGroupSnapshotContent) error {
	resp, err := s.cfg.CSI.GetVolumeGroupSnapshot(ctx, &csi.GetVolumeGroupSnapshotRequest{
		GroupSnapshotId: handleIn(c),
		SnapshotIds:     snapshotsIn(c),
	})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for group snapshot %s: %w", handleIn(c), err)
	}

	if c.Annotations[s.cfg.Local.TopologyKey] == "" {
		return s.claim(ctx, c)
	}

	return s.patchStatus(ctx, c, resp.GetGroupSnapshot())
}

// destroy deletes the group of a content, and lets the content go. It asks the API server itself, not the
// cache, whether that is to be done: it cannot be undone.
func (s *Snapshotter) destroy(ctx context.Context, cached *groupv1.VolumeGroupSnapshotContent) error {
	c, err := s.contents.Get(ctx, "", cached.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read VolumeGroupSnapshotContent %s: %w", cached.Name, err)
	}

	d, err := s.decide(ctx, c)
	if err != nil {
		return err
	}
	if c.UID != cached.UID || d != destroy {
		// The change comes as an event.
		return nil
	}

	if err := s.deleteGroup(ctx, c); err != nil {
		message := "Failed to delete group snapshot: " + status.Convert(err).Message()
		s.event(c, "GroupSnapshotDeleteError", message)
		return fmt.Errorf("delete the group snapshot of VolumeGroupSnapshotContent %s: %w", c.Name, err)
	}

	s.cfg.Log.Info("deleted a group snapshot", "content", c.Name)
	return s.removeFinalizer(ctx, c)
}

// deleteGroup deletes the group of a content. One that may have been made, and never became known, is learned
// by repeating the call that may have made it.
func (s *Snapshotter) deleteGroup(ctx context.Context, c *groupv1.VolumeGroupSnapshotContent) error {
	handle, snapshots := handleIn(c), snapshotsIn(c)
	if handle == "" {
		made, err := s.make(ctx, c)
		switch status.Code(err) {
		case codes.OK:
		case codes.NotFound, codes.InvalidArgument, codes.ResourceExhausted:
			return nil
		default:
			return err
		}
		handle = made.GetGroupSnapshotId()
	}

	_, err := s.cfg.CSI.DeleteVolumeGroupSnapshot(ctx, &csi.DeleteVolumeGroupSnapshotRequest{
		GroupSnapshotId: handle,
		SnapshotIds:     snapshots,
	})
	return err
}

// removeFinalizer takes the finalizer off the very version whose list of finalizers was read.
func (s *Snapshotter) removeFinalizer(ctx context.Context, c *groupv1.VolumeGroupSnapshotContent) error {
	others := slices.DeleteFunc(slices.Clone(c.Finalizers), func(f string) bool { return f == finalizer })
	return s.patch(ctx, c, map[string]any{"metadata": map[string]any{
		"uid":             c.UID,
		"resourceVersion": c.ResourceVersion,
		"finalizers":      others,
	}})
}
