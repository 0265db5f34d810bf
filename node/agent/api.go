package agent

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/kubeapi"
	"github.com/trivet-node/trivet/node/objects"
	"github.com/trivet-node/trivet/node/podsource"
)

// api is what the pod worker asks of the API server.
type api struct {
	client  *kubeapi.Client
	objects *objects.Cache
	mirrors podsource.Mirrors
}

// PatchStatus patches pods/status.
func (a api) PatchStatus(ctx context.Context, pod *v1.Pod, patch []byte) (*v1.Pod, error) {
	if podsource.Static(pod) {
		return a.mirrors.PatchStatus(ctx, pod, patch)
	}
	out := &v1.Pod{}
	err := a.client.Core.Patch(types.StrategicMergePatchType).Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("status").
		Body(patch).Do(ctx).Into(out)
	return out, err
}

// Delete ends the life of the object. If the name belongs to another pod by now, this one is gone.
func (a api) Delete(ctx context.Context, pod *v1.Pod) error {
	return a.mirrors.Delete(ctx, pod)
}

// Handler resolves a RuntimeClass.
func (a api) Handler(ctx context.Context, class string) (string, error) {
	c, err := a.objects.RuntimeClass(ctx, class)
	if err != nil {
		return "", err
	}
	return c.Handler, nil
}
