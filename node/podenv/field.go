package podenv

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Node is what the downward API shows of the node.
type Node struct {
	Name string

	// IPs are the addresses of the node, the primary one first.
	IPs []string

	// Allocatable is what stands for the limits of containers that have none.
	Allocatable v1.ResourceList
}

// FieldError says that a fieldPath has no value.
type FieldError struct{ Path string }

// Error returns the text, which names the path.
func (e *FieldError) Error() string { return fmt.Sprintf("fieldPath %q is not supported", e.Path) }

// Field returns the value of a fieldRef, of an environment variable or of a downwardAPI volume. podIPs are
// the addresses of the running sandbox, the primary one first. A path without a value is a *FieldError.
func Field(pod *v1.Pod, path string, node Node, podIPs []string) (string, error) {
	if base, key, ok := subscript(path); ok {
		switch base {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}

		return "", &FieldError{path}
	}

	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return pairs(pod.Labels), nil
	case "metadata.annotations":
		return pairs(pod.Annotations), nil
	case "spec.nodeName":
		return node.Name, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(node.IPs), nil
	case "status.hostIPs":
		return strings.Join(node.IPs, ","), nil
	case "status.podIP":
		return first(podIPs), nil
	case "status.podIPs":
		return strings.Join(podIPs, ","), nil
	}

	return "", &FieldError{path}
}

// subscript splits metadata.labels['key'].
func subscript(path string) (base, key string, ok bool) {
	base, rest, ok := strings.Cut(path, "['")
	if !ok {
		return "", "", false
	}
	key, ok = strings.CutSuffix(rest, "']")
	return base, key, ok
}

func first(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return all[0]
}

// pairs writes a map as the downward API does: sorted lines key="escaped value".
func pairs(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}

// Resource returns the value of a resourceFieldRef. container is the one that holds the reference, for
// references that name none.
func Resource(pod *v1.Pod, container string, ref *v1.ResourceFieldSelector, node Node) (string, error) {
	if ref.ContainerName != "" {
		container = ref.ContainerName
	}

	requirements, ok := resources(pod, container)
	if !ok {
		return "", fmt.Errorf("resourceFieldRef %s: the pod has no container %q", ref.Resource, container)
	}

	kind, name, _ := strings.Cut(ref.Resource, ".")
	var amount resource.Quantity
	switch kind {
	case "limits":
		amount, ok = requirements.Limits[v1.ResourceName(name)]
		if !ok || amount.IsZero() {
			amount = allocatable(pod, v1.ResourceName(name), node)
		}

	case "requests":
		amount = requirements.Requests[v1.ResourceName(name)]
	default:
		return "", fmt.Errorf("resourceFieldRef %q: must begin with limits. or requests.", ref.Resource)
	}

	return divide(v1.ResourceName(name), amount, ref.Divisor)
}

// allocatable returns what stands for a limit that a container does not have: that of the pod, or what the
// node can give.
func allocatable(pod *v1.Pod, name v1.ResourceName, node Node) resource.Quantity {
	if pod.Spec.Resources != nil {
		if q, ok := pod.Spec.Resources.Limits[name]; ok && !q.IsZero() {
			return q
		}
	}
	return node.Allocatable[name]
}

// resources returns the resources of an application or init container.
func resources(pod *v1.Pod, container string) (v1.ResourceRequirements, bool) {
	for _, c := range pod.Spec.Containers {
		if c.Name == container {
			return c.Resources, true
		}
	}

	for _, c := range pod.Spec.InitContainers {
		if c.Name == container {
			return c.Resources, true
		}
	}

	return v1.ResourceRequirements{}, false
}

// divide returns amount / divisor, rounded up as the downward API promises. A divisor of 0 stands for 1; CPU
// is divided in thousandths.
func divide(name v1.ResourceName, amount, divisor resource.Quantity) (string, error) {
	if divisor.IsZero() {
		divisor = *resource.NewQuantity(1, resource.DecimalSI)
	}

	value := amount.Value()
	by := divisor.Value()
	if name == v1.ResourceCPU {
		value = amount.MilliValue()
		by = divisor.MilliValue()
	}

	if by <= 0 {
		return "", fmt.Errorf("divisor %s of %s is not positive", divisor.String(), name)
	}

	return strconv.FormatInt(int64(math.Ceil(float64(value)/float64(by))), 10), nil
}
