package kubeletapi

import (
	"context"
	"fmt"
	"net/http"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/runtime"
)

// lookup finds the pods, containers and sandboxes that requests name.
type lookup struct {
	pods    Pods
	runtime *runtime.Client

	// logs is the directory with the logs of pods.
	logs string
}

// annotationMirror has, at a mirror pod, the UID that its static pod has at the node.
const annotationMirror = "kubernetes.io/config.mirror"

// pod finds a pod of the node by its name. An earlier pod may have had the same; if uid is not empty it must
// be that of the pod.
func (l lookup) pod(namespace, name, uid string) (*v1.Pod, error) {
	for _, p := range l.pods.Pods() {
		if p.Namespace != namespace || p.Name != name {
			continue
		}
		if uid == "" || string(p.UID) == uid || p.Annotations[annotationMirror] == uid {
			return p, nil
		}
	}
	return nil, notFound("pod does not exist: %s/%s", namespace, name)
}

// target returns the ID of the running container that the path names.
func (l lookup) target(r *http.Request) (string, error) {
	pod, err := l.pod(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid"))
	if err != nil {
		return "", err
	}
	return l.runningContainer(r.Context(), pod, r.PathValue("container"))
}

// runningContainer returns the ID of the running instance of a container.
func (l lookup) runningContainer(ctx context.Context, pod *v1.Pod, name string) (string, error) {
	if podspec.Find(pod, name) == nil {
		return "", notFound("container not found (%q)", name)
	}

	found, err := l.runtime.Containers(ctx, runtime.Selection{
		UID:       string(pod.UID),
		Container: name,
		Running:   true,
	})
	if err != nil {
		return "", fmt.Errorf("list containers of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	newest := runtime.NewestContainer(found)
	if newest == nil {
		return "", notFound("container not found (%q)", name)
	}

	return newest.ID, nil
}

// readySandbox returns the ID of the pod's newest sandbox that is ready.
func (l lookup) readySandbox(ctx context.Context, pod *v1.Pod) (string, error) {
	found, err := l.runtime.Sandboxes(ctx, runtime.Selection{UID: string(pod.UID), Running: true})
	if err != nil {
		return "", fmt.Errorf("list sandboxes of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	newest := runtime.NewestSandbox(found)
	if newest == nil {
		return "", notFound("pod %s/%s has no running sandbox", pod.Namespace, pod.Name)
	}
	return newest.ID, nil
}
