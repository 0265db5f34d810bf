package nodestatus

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/threshold"
)

// describe fills in what the node is: capacity, addresses, versions, what the runtime can do.
func (r *Reporter) describe(s *v1.NodeStatus, info runtime.Info) error {
	c, err := r.capacity()
	if err != nil {
		return err
	}
	if s.Capacity == nil {
		s.Capacity, s.Allocatable = v1.ResourceList{}, v1.ResourceList{}
	}

	// Others, such as device plugins, may have added resources of their own.
	maps.Copy(s.Capacity, c)
	maps.Copy(s.Allocatable, r.allocatable(c))

	s.Addresses = r.cfg.addresses(s.Addresses)
	s.DaemonEndpoints.KubeletEndpoint.Port = r.cfg.Port
	s.NodeInfo = r.machine.Info()
	s.NodeInfo.KubeletVersion = r.cfg.Version
	if info.Name != "" {
		s.NodeInfo.ContainerRuntimeVersion = info.Name + "://" + info.Version
	}

	s.DeclaredFeatures = slices.Clone(r.cfg.DeclaredFeatures)
	s.RuntimeHandlers = info.Handlers
	if info.Features != nil {
		s.Features = info.Features
	}

	return nil
}

// capacity is what the machine has, and how many pods it may run.
func (r *Reporter) capacity() (v1.ResourceList, error) {
	out, err := r.machine.Capacity(r.cfg.RootDir)
	if err != nil {
		return nil, err
	}
	out[v1.ResourcePods] = *resource.NewQuantity(r.cfg.MaxPods, resource.DecimalSI)
	return out, nil
}

// addresses are those that the node reports. Those that a cloud has set stay.
func (c *Config) addresses(now []v1.NodeAddress) []v1.NodeAddress {
	ips := c.IPs
	if c.ExternalCloud {
		if len(now) > 0 {
			return now
		}

		// the cloud finds the others
		ips = c.GivenIPs
	}

	var out []v1.NodeAddress
	for _, ip := range ips {
		out = append(out, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip})
	}

	return append(out, v1.NodeAddress{Type: v1.NodeHostName, Address: c.Hostname})
}

// allocatable is what pods may use of the capacity: not what is reserved, and not what is kept free. Memory
// of huge pages is for nothing else.
func (r *Reporter) allocatable(capacity v1.ResourceList) v1.ResourceList {
	out := minus(capacity, r.cfg.Reserved)
	if !r.cfg.AllAllocatable {
		out = minus(out, kept(r.cfg.Thresholds, capacity))
	}

	for name, pages := range capacity {
		if strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix) {
			out = minus(out, v1.ResourceList{v1.ResourceMemory: pages})
		}
	}

	return out
}

// kept is what the thresholds of eviction keep free.
func kept(thresholds threshold.Set, capacity v1.ResourceList) v1.ResourceList {
	out := v1.ResourceList{}
	for signal, name := range map[string]v1.ResourceName{
		threshold.Memory: v1.ResourceMemory,
		threshold.NodeFS: v1.ResourceEphemeralStorage,
	} {
		all := capacity[name]
		out[name] = *resource.NewQuantity(thresholds[signal].Of(all.Value()), resource.BinarySI)
	}
	return out
}

// minus subtracts, and never goes below zero.
func minus(capacity, reserved v1.ResourceList) v1.ResourceList {
	out := v1.ResourceList{}
	for name, q := range capacity {
		q = q.DeepCopy()
		if r, ok := reserved[name]; ok {
			q.Sub(r)
		}
		if q.Sign() < 0 {
			q = *resource.NewQuantity(0, q.Format)
		}

		out[name] = q
	}

	return out
}

// sameDescription compares all but conditions and images, which have rules of their own.
func sameDescription(a, b *v1.NodeStatus) bool {
	equal := equality.Semantic.DeepEqual
	return equal(a.Capacity, b.Capacity) &&
		equal(a.Allocatable, b.Allocatable) &&
		equal(a.Addresses, b.Addresses) &&
		equal(a.NodeInfo, b.NodeInfo) &&
		a.DaemonEndpoints == b.DaemonEndpoints &&
		equal(a.RuntimeHandlers, b.RuntimeHandlers) &&
		equal(a.Features, b.Features) &&
		slices.Equal(a.VolumesInUse, b.VolumesInUse) &&
		slices.Equal(a.DeclaredFeatures, b.DeclaredFeatures)
}

// maxImageNames bounds the names of an image in a Node, as in kubelet: the scheduler reads them, and the
// object must stay small.
const maxImageNames = 5

// nodeImages are the largest images, at most limit, or all if it is -1.
func nodeImages(images []*runtime.Image, limit int) []v1.ContainerImage {
	if limit < 0 {
		limit = len(images)
	}

	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b *runtime.Image) int { return cmp.Compare(b.Size, a.Size) })

	var out []v1.ContainerImage
	for _, i := range images[:min(len(images), limit)] {
		names := append(slices.Clone(i.RepoDigests), i.RepoTags...)
		out = append(out, v1.ContainerImage{
			Names:     names[:min(len(names), maxImageNames)],
			SizeBytes: int64(i.Size),
		})
	}

	return out
}
