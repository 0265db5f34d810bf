package allocation

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	helpers "k8s.io/component-helpers/resource"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
)

// Resources are those of the containers of a pod, by name, and of the pod as a whole.
type Resources struct {
	Pod        *v1.ResourceRequirements           `json:"pod,omitempty"`
	Containers map[string]v1.ResourceRequirements `json:"containers"`
}

// Of returns the resources in the specification of a pod, which shares them.
func Of(pod *v1.Pod) Resources {
	out := Resources{Pod: pod.Spec.Resources, Containers: map[string]v1.ResourceRequirements{}}
	for c := range podspec.Regular(pod) {
		out.Containers[c.Name] = c.Resources
	}
	return out
}

// In returns the pod with these resources in its specification. It shares everything else with the pod, which
// is not changed. A container of another name keeps what it has.
func (r Resources) In(pod *v1.Pod) *v1.Pod {
	out := *pod
	out.Spec.Resources = r.Pod
	out.Spec.InitContainers = slices.Clone(pod.Spec.InitContainers)
	out.Spec.Containers = slices.Clone(pod.Spec.Containers)
	for c := range podspec.Regular(&out) {
		if given, ok := r.Containers[c.Name]; ok {
			c.Resources = given
		}
	}
	return &out
}

// same reports whether two versions of a pod have the same resources in their specifications.
func same(a, b *v1.Pod) bool {
	if !equality.Semantic.DeepEqual(a.Spec.Resources, b.Spec.Resources) {
		return false
	}
	for c := range podspec.Regular(a) {
		other := podspec.Find(b, c.Name)
		if other == nil || !equality.Semantic.DeepEqual(c.Resources, other.Resources) {
			return false
		}
	}
	return true
}

// shown returns the resources that the API's status of a pod says to be given. Of limits it has only those
// that are in force.
func shown(pod *v1.Pod) Resources {
	out := Of(pod)
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if _, known := out.Containers[s.Name]; !known || s.Resources == nil {
			continue
		}

		given := *s.Resources.DeepCopy()
		if s.AllocatedResources != nil {
			given.Requests = s.AllocatedResources.DeepCopy()
		}

		given.Claims = out.Containers[s.Name].Claims
		out.Containers[s.Name] = given
	}

	if s := pod.Status.Resources; out.Pod != nil && s != nil {
		out.Pod = &v1.ResourceRequirements{
			Requests: only(pod.Status.AllocatedResources, out.Pod.Requests),
			Limits:   only(s.Limits, out.Pod.Limits),
			Claims:   out.Pod.Claims,
		}
	}

	return out
}

// only returns the amounts of those resources that are in the other list: the status of a pod as a whole has
// the sums over its containers, too.
func only(amounts, named v1.ResourceList) v1.ResourceList {
	var out v1.ResourceList
	for name := range named {
		if q, ok := amounts[name]; ok {
			if out == nil {
				out = v1.ResourceList{}
			}

			out[name] = q
		}
	}
	return out
}

// frees reports whether the newer version of a pod leaves room that the older one has taken.
func frees(old, pod *v1.Pod) bool {
	if plan.Terminal(pod.Status.Phase) {
		return !plan.Terminal(old.Status.Phase)
	}

	options := helpers.PodResourcesOptions{
		UseStatusResources: true,
		InPlacePodLevelResourcesVerticalScalingEnabled: true,
	}
	was, now := helpers.PodRequests(old, options), helpers.PodRequests(pod, options)
	return now.Cpu().Cmp(*was.Cpu()) < 0 || now.Memory().Cmp(*was.Memory()) < 0
}

// increases reports whether a pod asks for more CPU or memory than it has been given.
func increases(asked, given *v1.Pod) bool {
	was := helpers.PodRequests(given, helpers.PodResourcesOptions{})
	now := helpers.PodRequests(asked, helpers.PodResourcesOptions{})
	return now.Cpu().Cmp(*was.Cpu()) > 0 || now.Memory().Cmp(*was.Memory()) > 0
}
