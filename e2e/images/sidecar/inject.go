package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The names of what is injected.
const (
	redirectName = "sidecar-redirect"
	proxyName    = "sidecar-proxy"
	watchName    = "watch"
)

// injector changes pods.
type injector struct{ image string }

// proxy puts redirect and proxy before all other init containers, so that those use the network through the
// proxy, too. In a pod that has them they come first again, and serve the ports that it has now: another
// webhook may have added some.
func (i injector) proxy(pod *corev1.Pod) error {
	// These would be the rules of the node.
	if pod.Spec.HostNetwork {
		return nil
	}
	if runsAs(pod, proxyUser) {
		return fmt.Errorf("user %d is the proxy's: what it sends would not be proxied", proxyUser)
	}

	first := []corev1.Container{i.redirectContainer(), i.proxyContainer()}
	var rest []corev1.Container
	for _, c := range pod.Spec.InitContainers {
		switch c.Name {
		case redirectName:
			first[0] = c
		case proxyName:
			first[1] = c
		default:
			rest = append(rest, c)
		}
	}

	first[0].Args = []string{"redirect", "--ports=" + ports(pod.Spec.Containers, rest)}
	pod.Spec.InitContainers = append(first, rest...)
	return nil
}

func runsAs(pod *corev1.Pod, user int64) bool {
	if s := pod.Spec.SecurityContext; s != nil && s.RunAsUser != nil && *s.RunAsUser == user {
		return true
	}
	return slices.ContainsFunc(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers),
		func(c corev1.Container) bool {
			s := c.SecurityContext
			return c.Name != proxyName && s != nil && s.RunAsUser != nil && *s.RunAsUser == user
		})
}

// ports are those that containers of the pod say they listen on, with TCP.
func ports(lists ...[]corev1.Container) string {
	var all []int32
	for _, c := range slices.Concat(lists...) {
		for _, p := range c.Ports {
			if p.Protocol == "" || p.Protocol == corev1.ProtocolTCP {
				all = append(all, p.ContainerPort)
			}
		}
	}

	slices.Sort(all)
	var words []string
	for _, p := range slices.Compact(all) {
		words = append(words, strconv.Itoa(int(p)))
	}
	return strings.Join(words, ",")
}

func (i injector) redirectContainer() corev1.Container {
	return corev1.Container{
		Name:  redirectName,
		Image: i.image,
		SecurityContext: &corev1.SecurityContext{
			RunAsUser:              new(int64(0)),
			RunAsNonRoot:           new(false),
			ReadOnlyRootFilesystem: new(true),
			Capabilities: &corev1.Capabilities{
				Add:  []corev1.Capability{"NET_ADMIN"},
				Drop: []corev1.Capability{"ALL"},
			},
		},
	}
}

// proxyContainer is a native sidecar: what comes after it starts when its startup probe has succeeded, and it
// ends after all others.
func (i injector) proxyContainer() corev1.Container {
	ready := corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(statusPort)},
	}
	return corev1.Container{
		Name:          proxyName,
		Image:         i.image,
		Args:          []string{"proxy"},
		RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		StartupProbe: &corev1.Probe{
			ProbeHandler:     ready,
			PeriodSeconds:    1,
			FailureThreshold: 60,
		},
		ReadinessProbe: &corev1.Probe{ProbeHandler: ready, PeriodSeconds: 2},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser:                new(int64(proxyUser)),
			RunAsNonRoot:             new(true),
			AllowPrivilegeEscalation: new(false),
			ReadOnlyRootFilesystem:   new(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
}

// watch adds a container that watches the first one of the pod, and serves what it sees.
func watch(pod *corev1.Pod) error {
	there := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return c.Name == watchName
	})
	if there {
		return nil
	}
	if len(pod.Spec.Containers) == 0 || len(pod.Spec.Containers[0].Ports) == 0 {
		return errors.New("the first container has no port that could be watched")
	}

	url := fmt.Sprintf("--url=http://127.0.0.1:%d", pod.Spec.Containers[0].Ports[0].ContainerPort)
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
		Name:  watchName,
		Image: "docker.io/trivet/demo:1",
		Args:  []string{"sidecar", "--listen=:8081", url},
		Ports: []corev1.ContainerPort{{Name: "state", ContainerPort: 8081}},
	})
	return nil
}
