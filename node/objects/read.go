package objects

import (
	"context"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/storage"
)

// reads are the kinds that are read when they are asked for.
type reads struct {
	claims      kube.Objects[v1.PersistentVolumeClaim]
	volumes     kube.Objects[v1.PersistentVolume]
	attachments kube.Objects[storagev1.VolumeAttachment]
	drivers     kube.Objects[storagev1.CSIDriver]
	classes     kube.Objects[nodev1.RuntimeClass]
}

func newReads(c *kube.Client) reads {
	return reads{
		claims:      kube.Claims(c),
		volumes:     kube.Volumes(c),
		attachments: storage.Attachments(c),
		drivers:     storage.CSIDrivers(c),
		classes:     runtimeClasses(c),
	}
}

func runtimeClasses(c *kube.Client) kube.Objects[nodev1.RuntimeClass] {
	return kube.Of[nodev1.RuntimeClass, nodev1.RuntimeClassList](
		c, nodev1.SchemeGroupVersion, "runtimeclasses")
}

// read reads an object of a pod, to which the Node authorizer may not have the pod yet.
func read[T any](ctx context.Context, source kube.Objects[T], namespace, name string) (*T, error) {
	var out *T
	err := kube.RetryForbidden(ctx, func() (err error) {
		out, err = source.Get(ctx, namespace, name)
		return err
	})
	return out, err
}

// PersistentVolumeClaim reads a claim from the API server.
func (c *Cache) PersistentVolumeClaim(
	ctx context.Context, namespace, name string,
) (*v1.PersistentVolumeClaim, error) {
	return read(ctx, c.reads.claims, namespace, name)
}

// PersistentVolume reads a volume from the API server.
func (c *Cache) PersistentVolume(ctx context.Context, name string) (*v1.PersistentVolume, error) {
	return read(ctx, c.reads.volumes, "", name)
}

// VolumeAttachment reads an attachment from the API server.
func (c *Cache) VolumeAttachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error) {
	return read(ctx, c.reads.attachments, "", name)
}
