package kubeletconfig

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/cpuset"
)

// Reserved is what pods cannot have of cpu, memory, ephemeral-storage and pid: systemReserved and
// kubeReserved together. What evictionHard keeps free is not in it.
func (k *Configuration) Reserved() (v1.ResourceList, error) {
	out := v1.ResourceList{}
	for _, part := range []struct {
		field string
		list  map[string]string
	}{
		{"systemReserved", k.SystemReserved},
		{"kubeReserved", k.KubeReserved},
	} {
		for name, text := range part.list {
			if err := reserve(out, v1.ResourceName(name), text); err != nil {
				return nil, fmt.Errorf("%s: %w", part.field, err)
			}
		}
	}

	// CPUs by number stand in the place of amounts.
	if text := k.ReservedSystemCPUs; text != "" {
		cpus, err := cpuset.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("reservedSystemCPUs %q: %w", text, err)
		}

		out[v1.ResourceCPU] = *resource.NewQuantity(int64(cpus.Size()), resource.DecimalSI)
	}

	return out, nil
}

func reserve(out v1.ResourceList, name v1.ResourceName, text string) error {
	switch name {
	case v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage, "pid":
	default:
		return fmt.Errorf("%s cannot be reserved", name)
	}

	q, err := resource.ParseQuantity(text)
	if err != nil {
		return fmt.Errorf("%s=%q: %w", name, text, err)
	}
	if q.Sign() < 0 {
		return fmt.Errorf("%s=%q must not be negative", name, text)
	}

	sum := out[name]
	sum.Add(q)
	out[name] = sum
	return nil
}
