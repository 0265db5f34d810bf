package provision

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/storage"
)

// attributes are those of VolumeAttributesClasses. They ask the API server itself: claims seldom name one.
type attributes struct {
	local   objects.Local
	classes kube.Objects[storagev1.VolumeAttributesClass]
}

func newAttributes(local objects.Local, client *kube.Client) *attributes {
	return &attributes{local: local, classes: storage.AttributesClasses(client)}
}

// of returns the parameters of the class that a claim names, nil if it names none.
func (a *attributes) of(ctx context.Context, c *corev1.PersistentVolumeClaim) (map[string]string, error) {
	name := objects.WantedAttributes(c)
	if name == "" {
		return nil, nil
	}
	class, err := a.classes.Get(ctx, "", name)
	if err != nil {
		return nil, fmt.Errorf("read VolumeAttributesClass %s: %w", name, err)
	}
	if class.DriverName != a.local.Driver {
		return nil, fmt.Errorf("VolumeAttributesClass %s is of driver %s", name, class.DriverName)
	}
	return class.Parameters, nil
}
