package manifest

import (
	"slices"

	"github.com/distribution/reference"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// setDefaults fills in what the API server would: all of it, as kubelet's UID is made of the pod with its
// defaults.
func setDefaults(pod *v1.Pod) {
	spec := &pod.Spec
	if s := spec.TerminationGracePeriodSeconds; s != nil && *s < 0 {
		*s = 1
	}

	requestLimits(spec.InitContainers)
	requestLimits(spec.Containers)
	podDefaults(spec)
	if spec.HostNetwork {
		hostPorts(spec.InitContainers)
		hostPorts(spec.Containers)
	}

	for i := range spec.Volumes {
		volumeDefaults(&spec.Volumes[i])
	}

	for _, all := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range all {
			containerDefaults(&all[i])
		}
	}

	roundUp(spec.Overhead)
	if spec.Resources != nil {
		roundUp(spec.Resources.Limits, spec.Resources.Requests)
	}

	statusDefaults(&pod.Status)
}

func podDefaults(spec *v1.PodSpec) {
	unset(&spec.ServiceAccountName, spec.DeprecatedServiceAccount)
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	unset(&spec.DNSPolicy, v1.DNSClusterFirst)
	unset(&spec.RestartPolicy, v1.RestartPolicyAlways)
	unset(&spec.SecurityContext, &v1.PodSecurityContext{})
	unset(&spec.TerminationGracePeriodSeconds, new(int64(v1.DefaultTerminationGracePeriodSeconds)))
	unset(&spec.SchedulerName, v1.DefaultSchedulerName)
	unset(&spec.EnableServiceLinks, new(v1.DefaultEnableServiceLinks))
}

// unset gives a field that has no value one.
func unset[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// requestLimits has containers request what they are limited to, where they do not say what they request.
func requestLimits(containers []v1.Container) {
	for i := range containers {
		r := &containers[i].Resources
		if r.Limits != nil && r.Requests == nil {
			r.Requests = v1.ResourceList{}
		}
		for name, limit := range r.Limits {
			if _, ok := r.Requests[name]; !ok {
				r.Requests[name] = limit.DeepCopy()
			}
		}
	}
}

// hostPorts are the ports of containers that share the node's network.
func hostPorts(containers []v1.Container) {
	for i := range containers {
		for j := range containers[i].Ports {
			p := &containers[i].Ports[j]
			unset(&p.HostPort, p.ContainerPort)
		}
	}
}

// roundUp makes quantities multiples of a thousandth.
func roundUp(lists ...v1.ResourceList) {
	for _, list := range lists {
		for name, q := range list {
			q.RoundUp(resource.Milli)
			list[name] = q
		}
	}
}

func containerDefaults(c *v1.Container) {
	unset(&c.ImagePullPolicy, pullPolicy(c.Image))
	unset(&c.TerminationMessagePath, v1.TerminationMessagePathDefault)
	unset(&c.TerminationMessagePolicy, v1.TerminationMessageReadFile)
	for i := range c.Ports {
		unset(&c.Ports[i].Protocol, v1.ProtocolTCP)
	}

	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			fieldDefaults(from.FieldRef)
			if from.FileKeyRef != nil {
				unset(&from.FileKeyRef.Optional, new(false))
			}
		}
	}

	roundUp(c.Resources.Limits, c.Resources.Requests)
	for _, probe := range []*v1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		probeDefaults(probe)
	}

	if c.Lifecycle != nil {
		for _, hook := range []*v1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if hook != nil {
				httpDefaults(hook.HTTPGet)
			}
		}
	}
}

// pullPolicy is Always for images whose tag is latest, also by having none.
func pullPolicy(image string) v1.PullPolicy {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return v1.PullIfNotPresent
	}
	tagged, hasTag := named.(reference.Tagged)
	_, hasDigest := named.(reference.Digested)
	if hasTag && tagged.Tag() == "latest" || !hasTag && !hasDigest {
		return v1.PullAlways
	}
	return v1.PullIfNotPresent
}

func probeDefaults(p *v1.Probe) {
	if p == nil {
		return
	}
	unset(&p.TimeoutSeconds, 1)
	unset(&p.PeriodSeconds, 10)
	unset(&p.SuccessThreshold, 1)
	unset(&p.FailureThreshold, 3)
	httpDefaults(p.HTTPGet)
	if p.GRPC != nil {
		unset(&p.GRPC.Service, new(""))
	}
}

func httpDefaults(get *v1.HTTPGetAction) {
	if get == nil {
		return
	}
	unset(&get.Path, "/")
	unset(&get.Scheme, v1.URISchemeHTTP)
}

func fieldDefaults(field *v1.ObjectFieldSelector) {
	if field != nil {
		unset(&field.APIVersion, "v1")
	}
}

// statusDefaults are of a status that a manifest has no reason to give. It is not kept, but it is a part of
// the UID.
func statusDefaults(s *v1.PodStatus) {
	switch {
	case s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP):
		s.PodIPs = []v1.PodIP{{IP: s.PodIP}}
	case s.PodIP == "" && len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	}

	all := slices.Concat(s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses)
	for _, c := range all {
		roundUp(c.AllocatedResources)
		if c.Resources != nil {
			roundUp(c.Resources.Limits, c.Resources.Requests)
		}
	}

	roundUp(s.AllocatedResources)
	if s.Resources != nil {
		roundUp(s.Resources.Limits, s.Resources.Requests)
	}
}
