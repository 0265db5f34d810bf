package csivolume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/utils/ptr"

	"github.com/trivet-node/trivet/internal/retry"
)

// attached waits until the controller has attached the volume to this node, for drivers that need that. The
// Node authorizer allows the node to read an attachment by name, but not to watch it, so this polls.
func (m *Mounter) attached(ctx context.Context, c *call) error {
	if c.Inline != nil || !ptr.Deref(c.policy.AttachRequired, false) {
		return nil
	}

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
// returns an error that says how far the attachment is.
func (m *Mounter) attachment(ctx context.Context, name string, c *call) error {
	attachment, err := m.cfg.Objects.VolumeAttachment(ctx, name)
	switch {
	case err != nil:
		return err
	case attachment.DeletionTimestamp != nil:
		return fmt.Errorf("volume attachment %s is being deleted", name)
	case attachment.Status.Attached:
		c.context = attachment.Status.AttachmentMetadata
		return nil
	case attachment.Status.AttachError != nil:
		return errors.New(attachment.Status.AttachError.Message)
	}

	return fmt.Errorf("volume attachment %s is not attached yet", name)
}
