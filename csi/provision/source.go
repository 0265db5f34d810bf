package provision

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
)

// errElsewhere is that of a claim whose source is on another node: it can be served there alone.
var errElsewhere = errors.New("the content is on another node")

// errUnread is that of a source of which is not known what it is: the API server did not say.
var errUnread = errors.New("cannot be read")

// unread is what reading an object of a source has failed with. One that is not there is known to be wrong.
func unread(object string, err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("read %s: %w", object, err)
	}
	return fmt.Errorf("%s %w: %w", object, errUnread, err)
}

// sourceRef is the object that a claim wants the content of; nil for an empty volume. Of the two fields the
// API server keeps the first in step with the second.
func sourceRef(c *corev1.PersistentVolumeClaim) *corev1.TypedObjectReference {
	if c.Spec.DataSourceRef != nil {
		return c.Spec.DataSourceRef
	}
	if c.Spec.DataSource == nil {
		return nil
	}
	return &corev1.TypedObjectReference{
		APIGroup: c.Spec.DataSource.APIGroup,
		Kind:     c.Spec.DataSource.Kind,
		Name:     c.Spec.DataSource.Name,
	}
}

// sourceKind is what a claim can want the content of.
type sourceKind string

const (
	noSource       sourceKind = ""
	sourceClaim    sourceKind = "PersistentVolumeClaim"
	sourceSnapshot sourceKind = "VolumeSnapshot"

	// sourceOther is filled in by a populator, which has a claim of its own provisioned for that.
	sourceOther sourceKind = "other"
)

func sourceKindOf(c *corev1.PersistentVolumeClaim) sourceKind {
	ref := sourceRef(c)
	if ref == nil {
		return noSource
	}

	group := ""
	if ref.APIGroup != nil {
		group = *ref.APIGroup
	}

	switch {
	case ref.Kind == string(sourceClaim) && group == "":
		return sourceClaim
	case ref.Kind == string(sourceSnapshot) && group == snapshotv1.GroupName:
		return sourceSnapshot
	}

	return sourceOther
}

// sourceOnce is sources.of, or what an intent of the volume has: with that it may have been made, and the
// source be gone by now.
func (p *Provisioner) sourceOnce(
	ctx context.Context,
	volume string,
	c *corev1.PersistentVolumeClaim,
) (*csi.VolumeContentSource, error) {
	i, known := p.intents.get(volume)
	if !known || i.UID != string(c.UID) {
		return p.sources.of(ctx, c)
	}
	req, err := i.request()
	return req.GetVolumeContentSource(), err
}

// sources are what claims can begin with the content of. They ask the API server itself: claims seldom have a
// source.
type sources struct {
	local     objects.Local
	claims    kube.Objects[corev1.PersistentVolumeClaim]
	volumes   kube.Objects[corev1.PersistentVolume]
	snapshots kube.Objects[snapshotv1.VolumeSnapshot]
	contents  kube.Objects[snapshotv1.VolumeSnapshotContent]
}

func newSources(local objects.Local, client *kube.Client) *sources {
	return &sources{
		local:     local,
		claims:    kube.Claims(client),
		volumes:   kube.Volumes(client),
		snapshots: objects.Snapshots(client),
		contents:  objects.SnapshotContents(client),
	}
}

// of returns what the volume of a claim is to begin with the content of, nil for nothing. It is
// errElsewhere if that is not on this node, and errUnread if it could not be read.
func (s *sources) of(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
) (*csi.VolumeContentSource, error) {
	switch sourceKindOf(c) {
	case sourceClaim:
		return s.ofClaim(ctx, c, sourceRef(c).Name)
	case sourceSnapshot:
		return s.ofSnapshot(ctx, c, sourceRef(c).Name)
	}
	return nil, nil
}

// modeOf returns a volume mode that may be left open.
func modeOf(m *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	if m == nil {
		return corev1.PersistentVolumeFilesystem
	}
	return *m
}

func (s *sources) ofClaim(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	name string,
) (*csi.VolumeContentSource, error) {
	source, err := s.claims.Get(ctx, c.Namespace, name)
	if err != nil {
		return nil, unread("the source, claim "+name, err)
	}
	if source.DeletionTimestamp != nil || source.Status.Phase != corev1.ClaimBound {
		return nil, fmt.Errorf("the source, claim %s, is %s and not bound, or is being deleted",
			name, source.Status.Phase)
	}
	if have, want := modeOf(source.Spec.VolumeMode), modeOf(c.Spec.VolumeMode); have != want {
		return nil, fmt.Errorf("the source, claim %s, has volume mode %s, requested was %s", name, have, want)
	}

	pv, err := s.volumes.Get(ctx, "", source.Spec.VolumeName)
	switch {
	case err != nil:
		return nil, unread("the volume of the source, claim "+name, err)
	case pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != source.UID:
		return nil, fmt.Errorf("the source, claim %s, is not what volume %s is bound to", name, pv.Name)
	case pv.Spec.CSI == nil || pv.Spec.CSI.Driver != s.local.Driver:
		return nil, fmt.Errorf("the source, claim %s, is of another driver", name)
	case !s.local.Holds(pv):
		return nil, fmt.Errorf("the source, claim %s: %w", name, errElsewhere)
	}

	volume := &csi.VolumeContentSource_VolumeSource{VolumeId: pv.Spec.CSI.VolumeHandle}
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: volume}}, nil
}

func (s *sources) ofSnapshot(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	name string,
) (*csi.VolumeContentSource, error) {
	snapshot, err := s.snapshots.Get(ctx, c.Namespace, name)
	if err != nil {
		return nil, unread("the source, snapshot "+name, err)
	}

	state := snapshot.Status
	ready := state != nil && state.ReadyToUse != nil && *state.ReadyToUse &&
		state.BoundVolumeSnapshotContentName != nil
	if snapshot.DeletionTimestamp != nil || !ready {
		return nil, fmt.Errorf("the source, snapshot %s, is not ready, or is being deleted", name)
	}

	content, err := s.contents.Get(ctx, "", *state.BoundVolumeSnapshotContentName)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("the source, snapshot %s, has lost its content", name)
	case err != nil:
		return nil, unread("the content of the source, snapshot "+name, err)
	case content.Spec.VolumeSnapshotRef.UID != snapshot.UID:
		return nil, fmt.Errorf("the source, snapshot %s, is not what content %s is bound to",
			name, content.Name)
	case content.Spec.Driver != s.local.Driver:
		return nil, fmt.Errorf("the source, snapshot %s, is of another driver", name)
	case content.Status == nil || content.Status.SnapshotHandle == nil:
		return nil, fmt.Errorf("the source, snapshot %s, is not ready", name)
	case content.Annotations[s.local.TopologyKey] != s.local.Node:
		return nil, fmt.Errorf("the source, snapshot %s: %w", name, errElsewhere)
	}
	if err := checkMode(content, c); err != nil {
		return nil, fmt.Errorf("the source, snapshot %s: %w", name, err)
	}

	handle := &csi.VolumeContentSource_SnapshotSource{SnapshotId: *content.Status.SnapshotHandle}
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: handle}}, nil
}

// allowModeChange is the annotation with which an administrator lets a snapshot become a volume of another
// mode, see external-provisioner.
const allowModeChange = "snapshot.storage.kubernetes.io/allow-volume-mode-change"

// checkMode refuses a claim of another volume mode than the snapshot's volume had, unless that is allowed.
func checkMode(content *snapshotv1.VolumeSnapshotContent, c *corev1.PersistentVolumeClaim) error {
	have, want := content.Spec.SourceVolumeMode, modeOf(c.Spec.VolumeMode)
	if have == nil || *have == want || content.Annotations[allowModeChange] == "true" {
		return nil
	}
	return fmt.Errorf("its volume mode is %s, requested was %s, and content %s does not have the annotation"+
		" %s: \"true\"", *have, want, content.Name, allowModeChange)
}
