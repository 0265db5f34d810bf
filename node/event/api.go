package event

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// API is the Sink of a real cluster.
type API struct{ Core *rest.RESTClient }

// Create stores a new event.
func (a API) Create(ctx context.Context, e *v1.Event) error {
	return a.Core.Post().Namespace(e.Namespace).Resource("events").Body(e).Do(ctx).Error()
}

// Patch changes a stored event.
func (a API) Patch(ctx context.Context, namespace, name string, patch []byte) error {
	return a.Core.Patch(types.StrategicMergePatchType).Namespace(namespace).Resource("events").Name(name).Body(patch).Do(ctx).Error()
}
