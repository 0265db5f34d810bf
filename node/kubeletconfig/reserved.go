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
	system, kube, err := k.ReservedParts()
	if err != nil {
		return nil, err
	}

	out := system
	for name, amount := range kube {
		sum := out[name]
		sum.Add(amount)
		out[name] = sum
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

// ReservedParts are systemReserved and kubeReserved.
func (k *Configuration) ReservedParts() (system, kube v1.ResourceList, err error) {
	system, kube = v1.ResourceList{}, v1.ResourceList{}
	for name, text := range k.SystemReserved {
		if err := reserve(system, v1.ResourceName(name), text); err != nil {
			return nil, nil, fmt.Errorf("systemReserved: %w", err)
		}
	}
	for name, text := range k.KubeReserved {
		if err := reserve(kube, v1.ResourceName(name), text); err != nil {
			return nil, nil, fmt.Errorf("kubeReserved: %w", err)
		}
	}
	return system, kube, nil
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

	out[name] = q
	return nil
}
