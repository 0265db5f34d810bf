package kubeletapi

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels that kubelet puts on everything it makes in the runtime.
const (
	labelUID       = "io.kubernetes.pod.uid"
	labelContainer = "io.kubernetes.container.name"
)

// pod finds a pod of the node by name, and by UID if one is given (a pod may have been made anew under its
// name).
func (s *Server) pod(namespace, name, uid string) (*v1.Pod, error) {
	for _, p := range s.cfg.Pods.Pods() {
		if p.Namespace == namespace && p.Name == name &&
			(uid == "" || string(p.UID) == uid || p.Annotations["kubernetes.io/config.mirror"] == uid) {
			return p, nil
		}
	}
	return nil, notFound("pod does not exist: %s/%s", namespace, name)
}

// hasContainer reports whether the pod's spec has a container of the name.
func hasContainer(pod *v1.Pod, name string) bool {
	named := func(n string) bool { return n == name }
	return slices.ContainsFunc(pod.Spec.Containers, func(c v1.Container) bool { return named(c.Name) }) ||
		slices.ContainsFunc(pod.Spec.InitContainers, func(c v1.Container) bool { return named(c.Name) }) ||
		slices.ContainsFunc(
			pod.Spec.EphemeralContainers,
			func(c v1.EphemeralContainer) bool { return named(c.Name) },
		)
}

// instances are the runtime's containers of that name in the pod, newest first.
func (s *Server) instances(ctx context.Context, pod *v1.Pod, name string) ([]*cri.Container, error) {
	answer, err := s.cfg.Runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
		LabelSelector: map[string]string{labelUID: string(pod.UID), labelContainer: name}}})
	if err != nil {
		return nil, fmt.Errorf("list containers of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	found := answer.Containers
	slices.SortFunc(found, func(a, b *cri.Container) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) })
	return found, nil
}

// runningContainer is the ID of the running instance.
func (s *Server) runningContainer(ctx context.Context, pod *v1.Pod, name string) (string, error) {
	if !hasContainer(pod, name) {
		return "", notFound("container not found (%q)", name)
	}

	found, err := s.instances(ctx, pod, name)
	if err != nil {
		return "", err
	}

	for _, c := range found {
		if c.State == cri.ContainerState_CONTAINER_RUNNING {
			return c.Id, nil
		}
	}

	return "", notFound("container not found (%q)", name)
}

// sandbox is the ID of the pod's ready sandbox.
func (s *Server) sandbox(ctx context.Context, pod *v1.Pod) (string, error) {
	answer, err := s.cfg.Runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		State:         &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY},
		LabelSelector: map[string]string{labelUID: string(pod.UID)}}})
	if err != nil {
		return "", fmt.Errorf("list sandboxes of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if len(answer.Items) == 0 {
		return "", notFound("pod %s/%s has no running sandbox", pod.Namespace, pod.Name)
	}

	newest := slices.MaxFunc(
		answer.Items,
		func(a, b *cri.PodSandbox) int { return cmp.Compare(a.CreatedAt, b.CreatedAt) },
	)

	return newest.Id, nil
}
