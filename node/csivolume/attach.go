package csivolume

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/csivolume/inuse"
)

// attaches reports whether a controller attaches the volume to the node.
func (c *call) attaches() bool {
	return c.Inline == nil && ptr.Deref(c.policy.AttachRequired, false)
}

// attached waits until the Node shows the volume in use, so that it is not detached, and the controller has
// attached it to this node, for drivers that need that. The Node authorizer allows the node to read an
// attachment by name, but not to watch it, so this polls.
func (m *Mounter) attached(ctx context.Context, c *call) error {
	if !c.attaches() {
		return nil
	}

	m.cfg.InUse.Hold(c.driver.Name, c.handle, string(c.Pod.UID))
	name := attachmentName(c.handle, c.driver.Name, m.cfg.Node)
	ctx, cancel := context.WithTimeout(ctx, attachWait)
	defer cancel()

	backoff := retry.Backoff{First: 50 * time.Millisecond, Max: 2 * time.Second}
	err := retry.Until(ctx, backoff, func(ctx context.Context) error { return m.attachment(ctx, name, c) })
	if err != nil {
		return fmt.Errorf("wait for the volume to be attached: %w", err)
	}

	return nil
}

// attachment reads the VolumeAttachment once. If the volume is attached it keeps the metadata; otherwise it
// returns an error that says how far the attachment is. A controller that is about to detach the volume takes
// it from the Node before it looks, for the last time, whether it is in use: so the Node is read after that
// was reported.
func (m *Mounter) attachment(ctx context.Context, name string, c *call) error {
	if !m.cfg.InUse.IsReported(c.driver.Name, c.handle) {
		return errors.New("it is not yet in the node's volumesInUse")
	}

	attachment, err := m.cfg.Objects.VolumeAttachment(ctx, name)
	switch {
	case err != nil:
		return err
	case attachment.DeletionTimestamp != nil:
		return fmt.Errorf("volume attachment %s is being deleted", name)
	case attachment.Status.Attached:
		c.context = attachment.Status.AttachmentMetadata
		return shownAttached(ctx, m.cfg.Nodes, m.cfg.Node, inuse.Name(c.driver.Name, c.handle))
	case attachment.Status.AttachError != nil:
		return errors.New(attachment.Status.AttachError.Message)
	}

	return fmt.Errorf("volume attachment %s is not attached yet", name)
}

// shownAttached returns an error if a Node does not show the volume as attached.
func shownAttached(ctx context.Context, nodes Nodes, node string, volume v1.UniqueVolumeName) error {
	read, err := nodes.Get(ctx, "", node)
	if err != nil {
		return fmt.Errorf("read node %s: %w", node, err)
	}

	for _, attached := range read.Status.VolumesAttached {
		if attached.Name == volume {
			return nil
		}
	}
	return errors.New("volume not attached according to node status")
}
