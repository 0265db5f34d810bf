package eviction

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"

	"github.com/trivet-node/trivet/node/threshold"
)

// message says why a pod is evicted, in kubelet's words, and annotates the event with who has used too much.
// met are the thresholds to act on, the first of them being the one that the pod is evicted for.
func message(
	c candidate,
	met []threshold.Threshold,
	seen Observation,
) (text string, annotations map[string]string) {
	starved := resources[met[0].Signal]
	var b strings.Builder
	fmt.Fprintf(&b, "The node was low on resource: %v. ", starved)

	t := met[0]
	if o, measured := seen[t.Signal]; measured {
		limit := t.Amount.Quantity(o.Capacity)
		fmt.Fprintf(&b, "Threshold quantity: %s, available: %s. ", limit.String(), quantity(starved, o.Left))
	}

	annotations = map[string]string{}
	if !c.measured {
		return b.String(), annotations
	}

	if asked, has := requestOfPod(c.pod, starved); has {
		used := quantity(starved, c.usage.Memory)
		fmt.Fprintf(&b, "Pod %s was using %s, request is %s, has larger consumption of %v. ",
			c.pod.Name, used, asked.String(), starved)
		annotations["offending_pod"] = c.pod.Name
		annotations["offending_pod_usage"] = used
	}

	var names, usages []string
	for _, o := range offenders(c, starved) {
		fmt.Fprintf(&b, "Container %s was using %s, request is %s, has larger consumption of %v. ",
			o.name, o.used, o.asked, starved)
		names = append(names, o.name)
		usages = append(usages, o.used)
	}

	annotations["offending_containers"] = strings.Join(names, ",")
	annotations["offending_containers_usage"] = strings.Join(usages, ",")
	annotations["starved_resource"] = string(starved)
	return b.String(), annotations
}

// requestOfPod is what a pod has asked for as a whole, not by its containers, of memory.
func requestOfPod(pod *v1.Pod, name v1.ResourceName) (asked resource.Quantity, has bool) {
	if name != v1.ResourceMemory || !helpers.IsPodLevelResourcesSet(pod) {
		return resource.Quantity{}, false
	}
	asked, has = pod.Spec.Resources.Requests[name]
	return asked, has
}

// offender is a container that uses more than it asked for.
type offender struct {
	name  string
	used  string
	asked string
}

// offenders are those containers of a pod, in the order of the spec: application containers, then init
// containers. Of other resources than memory and disk space it is not known what a container uses.
func offenders(c candidate, starved v1.ResourceName) []offender {
	var out []offender
	add := func(spec *v1.Container) {
		used, known := c.usage.Containers[spec.Name].of(starved)
		asked := spec.Resources.Requests[starved]
		if known && used > asked.Value() {
			out = append(out, offender{spec.Name, quantity(starved, used), asked.String()})
		}
	}

	for i := range c.pod.Spec.Containers {
		add(&c.pod.Spec.Containers[i])
	}

	for i := range c.pod.Spec.InitContainers {
		add(&c.pod.Spec.InitContainers[i])
	}

	return out
}

// of is how much of a resource a container uses, if that is known.
func (u ContainerUsage) of(name v1.ResourceName) (used int64, known bool) {
	switch {
	case name == v1.ResourceMemory && u.Memory != nil:
		return *u.Memory, true
	case name == v1.ResourceEphemeralStorage && u.Layer != nil && u.Logs != nil:
		return u.Layer.Bytes + u.Logs.Bytes, true
	}
	return 0, false
}

// quantity is an amount of a resource as messages have it: bytes in binary units, other things in decimal
// ones.
func quantity(name v1.ResourceName, amount int64) string {
	if name == inodes || name == processes {
		return resource.NewQuantity(amount, resource.DecimalSI).String()
	}
	return resource.NewQuantity(amount, resource.BinarySI).String()
}
