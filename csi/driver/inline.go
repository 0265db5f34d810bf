package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/csi/volume"
)

// An inline volume is part of one pod: it is made when it is published and deleted when it is unpublished,
// under an ID that kubelet made up. Here it is a volume like all others, whose name follows from that ID.
//
// Everybody who may make a pod may ask for one, of any size, and no quota of a namespace counts it. So
// what all of them together may have is bounded, and nothing is reserved for them.

// inlineKey is in the context of an inline volume (kubernetes-csi, "Ephemeral Local Volumes").
const inlineKey = "csi.storage.k8s.io/ephemeral"

// defaultInline is how large an inline volume is that says nothing about that.
const defaultInline = 1 << 30

const inlinePrefix = "inline/"

func inlineName(id string) string { return inlinePrefix + id }

// IsInline reports whether a volume of that name is part of a pod.
func IsInline(name string) bool { return strings.HasPrefix(name, inlinePrefix) }

// inline returns the inline volume that kubelet has an ID for; volume.ErrNotFound if it has been deleted, or
// is none.
func (n *nodeService) inline(id string) (volume.Volume, error) {
	return n.volumes.Get(volume.ID(inlineName(id)))
}

// stagePathOf is where an inline volume is staged: nobody but the driver knows of that.
func (n *nodeService) stagePathOf(v volume.Volume) string {
	return filepath.Join(n.inlineDir, v.ID, "globalmount")
}

// publishInline makes an inline volume and puts it on its target. It is finished, or undone, by who repeats
// it or unpublishes.
func (n *nodeService) publishInline(ctx context.Context, req *csi.NodePublishVolumeRequest) error {
	w, err := parseCapabilities(req.GetVolumeCapability())
	if err != nil {
		return err
	}
	if w.access != volume.Filesystem {
		return invalid("inline volume with %s access", w.access)
	}

	size, p, err := parseInline(req.GetVolumeContext())
	if err != nil {
		return err
	}
	if err := checkUnreserved(w, p); err != nil {
		return err
	}

	v, err := n.createInline(ctx, volume.Request{
		Name:     inlineName(req.GetVolumeId()),
		Required: size,
		Backend:  "btrfs",
		Access:   w.access,
		FSType:   "btrfs",
		NoCOW:    p.noCOW,
		Options:  w.options,
	})
	if err != nil {
		return err
	}

	use := w.use(req.GetReadonly())
	if err := n.publisher.Stage(ctx, v.ID, n.stagePathOf(v), use); err != nil {
		return err
	}

	return n.publisher.Publish(ctx, v.ID, req.GetTargetPath(), use)
}

// explainInline says why a volume is not found that was not staged, as inline volumes are not: that it is one
// is said where the CSIDriver has it so.
func explainInline(req *csi.NodePublishVolumeRequest, err error) error {
	if !errors.Is(err, volume.ErrNotFound) || req.GetStagingTargetPath() != "" {
		return err
	}
	return fmt.Errorf("%w; inline volumes of pods need podInfoOnMount: true in the CSIDriver", err)
}

// checkUnreserved refuses inline volumes whose bytes are taken from the disk before they are written.
func checkUnreserved(w wanted, p parameters) error {
	switch {
	case p.encryption != "":
		return invalid("encryption %q: an inline volume is a subvolume of the pool (btrfs), which is not"+
			" encrypted", p.encryption)
	case p.reserve != nil && *p.reserve:
		return invalid("reserve: nothing is reserved for inline volumes")
	case p.backend != "" && p.backend != "btrfs", w.fsType != "" && w.fsType != "btrfs":
		return invalid("backend %q with file system %q: an inline volume is a subvolume of the pool (btrfs);"+
			" images reserve what they may hold", p.backend, w.fsType)
	}
	return nil
}

// createInline makes the volume if all inline volumes together have no more than they may then. One that
// exists stays, whatever was made meanwhile.
func (n *nodeService) createInline(ctx context.Context, r volume.Request) (volume.Volume, error) {
	n.inlineMu.Lock()
	defer n.inlineMu.Unlock()

	id, left := volume.ID(r.Name), n.inlineMost
	exists := false
	for _, v := range n.volumes.List("", 0) {
		exists = exists || v.ID == id
		if strings.HasPrefix(v.Name, inlineName("")) {
			left -= v.Size
		}
	}

	switch {
	case exists:
	case n.inlineMost == 0:
		return volume.Volume{}, status.Error(codes.FailedPrecondition,
			"inline volumes are not served on this node (--inline-most says how many bytes they may have)")
	case r.Required > left:
		return volume.Volume{}, fmt.Errorf("%w: inline volume of %d bytes: all of them may have %d"+
			" (--inline-most), %d are left", volume.ErrFull, r.Required, n.inlineMost, max(0, left))
	}

	return n.volumes.Create(ctx, r)
}

// parseInline reads the volumeAttributes of a pod: size, and the parameters that a StorageClass may have.
func parseInline(in map[string]string) (size int64, p parameters, err error) {
	size = defaultInline
	class := map[string]string{}
	for key, value := range in {
		switch {
		case strings.HasPrefix(key, "csi.storage.k8s.io/"):
		case key == "size":
			q, err := resource.ParseQuantity(value)
			if err != nil || q.Sign() <= 0 {
				return 0, parameters{}, invalid("size is %q, which is not one such as 1Gi", value)
			}
			size = q.Value()

		default:
			class[key] = value
		}
	}

	p, err = parseParameters(class)
	return size, p, err
}

// unpublish takes a volume from a target, and deletes it if it is inline.
func (n *nodeService) unpublish(ctx context.Context, id, path string) error {
	v, err := n.inline(id)
	switch {
	case err == nil:
		return n.endInline(ctx, v, path)
	case !errors.Is(err, volume.ErrNotFound):
		return err
	case volume.CheckID(id) != nil:
		// It was deleted before: no mount may be left all the same.
		return n.publisher.Unpublish(ctx, volume.ID(inlineName(id)), path)
	}
	return n.publisher.Unpublish(ctx, id, path)
}

func (n *nodeService) endInline(ctx context.Context, v volume.Volume, path string) error {
	if err := n.publisher.Unpublish(ctx, v.ID, path); err != nil {
		return err
	}
	if err := n.publisher.Unstage(ctx, v.ID, n.stagePathOf(v)); err != nil {
		return err
	}
	if err := n.volumes.Delete(ctx, v.ID); err != nil {
		return fmt.Errorf("delete inline volume: %w", err)
	}
	return nil
}

// seen returns the volume that kubelet means by an ID, inline or not.
func (n *nodeService) seen(id string) (volume.Volume, error) {
	if v, err := n.inline(id); !errors.Is(err, volume.ErrNotFound) {
		return v, err
	}
	return n.get(id)
}
