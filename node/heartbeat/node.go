package heartbeat

import (
	"context"
	"maps"
	goruntime "runtime"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/threshold"
)

// What a node and an external cloud provider tell each other (k8s.io/cloud-provider/api).
const (
	// A taint: the cloud has not described the node yet.
	uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"
	// An annotation: addresses that the node was given.
	providedIPs = "alpha.kubernetes.io/provided-node-ip"
)

// initial is the Node as it is registered.
func (h *Heart) initial(ctx context.Context) (*v1.Node, error) {
	n := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: h.cfg.Name, Labels: h.labels(), Annotations: h.annotations()},
		Spec:       v1.NodeSpec{ProviderID: h.cfg.ProviderID, Taints: h.taints()},
	}
	info, runtimeErr := h.runtime.Info(ctx)
	if err := h.describe(&n.Status, info); err != nil {
		return nil, err
	}
	apply(&n.Status, h.inspect(ctx, info, runtimeErr), metav1.Now().Time)
	return n, nil
}

// labels are what the machine is, and those of --node-labels.
func (h *Heart) labels() map[string]string {
	out := map[string]string{
		v1.LabelHostname:          h.cfg.Hostname,
		v1.LabelOSStable:          "linux",
		v1.LabelArchStable:        goruntime.GOARCH,
		"beta.kubernetes.io/os":   "linux",
		"beta.kubernetes.io/arch": goruntime.GOARCH,
	}
	maps.Copy(out, h.cfg.Labels)
	return out
}

// taints are those of a new node. One that a cloud has not described yet keeps pods away until it has.
func (h *Heart) taints() []v1.Taint {
	taints := slices.Clone(h.cfg.Taints)
	if h.cfg.ExternalCloud {
		taints = append(taints, v1.Taint{Key: uninitialized, Value: "true", Effect: v1.TaintEffectNoSchedule})
	}
	return taints
}

// annotations are those that the agent owns.
func (h *Heart) annotations() map[string]string {
	out := map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
	if h.cfg.ExternalCloud && len(h.cfg.GivenIPs) > 0 {
		out[providedIPs] = strings.Join(h.cfg.GivenIPs, ",")
	}
	return out
}

// describe fills in what the node is: capacity, addresses, versions.
func (h *Heart) describe(s *v1.NodeStatus, info runtime.Info) error {
	c, err := capacity(h.cfg.RootDir, h.cfg.MaxPods)
	if err != nil {
		return err
	}
	if s.Capacity == nil {
		s.Capacity, s.Allocatable = v1.ResourceList{}, v1.ResourceList{}
	}

	// others (device plugins) may have added their own
	maps.Copy(s.Capacity, c)
	maps.Copy(s.Allocatable, h.allocatable(c))
	s.Addresses = h.addresses(s.Addresses)
	s.DaemonEndpoints.KubeletEndpoint.Port = h.cfg.Port
	s.NodeInfo = systemInfo()
	s.NodeInfo.KubeletVersion = h.cfg.Version
	if info.Name != "" {
		s.NodeInfo.ContainerRuntimeVersion = info.Name + "://" + info.Version
	}

	s.DeclaredFeatures = slices.Clone(h.cfg.DeclaredFeatures)
	s.RuntimeHandlers = nil
	for _, r := range info.Handlers {
		handler := v1.NodeRuntimeHandler{Name: r.Name}
		if f := r.Features; f != nil {
			handler.Features = &v1.NodeRuntimeHandlerFeatures{
				RecursiveReadOnlyMounts: new(f.RecursiveReadOnlyMounts),
				UserNamespaces:          new(f.UserNamespaces),
			}
		}

		s.RuntimeHandlers = append(s.RuntimeHandlers, handler)
	}

	if info.Features != nil {
		s.Features = &v1.NodeFeatures{SupplementalGroupsPolicy: new(info.Features.SupplementalGroupsPolicy)}
	}

	return nil
}

// addresses are those that the node reports; those of a cloud stay.
func (h *Heart) addresses(now []v1.NodeAddress) []v1.NodeAddress {
	if h.cfg.ExternalCloud && len(now) > 0 {
		return now
	}

	ips := h.cfg.IPs
	if h.cfg.ExternalCloud {
		// others are for the cloud to find
		ips = h.cfg.GivenIPs
	}

	var out []v1.NodeAddress
	for _, ip := range ips {
		out = append(out, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip})
	}

	return append(out, v1.NodeAddress{Type: v1.NodeHostName, Address: h.cfg.Hostname})
}

// allocatable is what pods may use of the capacity: not what is reserved, and not what is kept free.
func (h *Heart) allocatable(capacity v1.ResourceList) v1.ResourceList {
	out := minus(capacity, h.cfg.Reserved)
	if h.cfg.AllAllocatable {
		return out
	}
	return minus(out, kept(h.cfg.Thresholds, capacity))
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
	return equality.Semantic.DeepEqual(a.Capacity, b.Capacity) &&
		equality.Semantic.DeepEqual(a.Allocatable, b.Allocatable) &&
		equality.Semantic.DeepEqual(a.Addresses, b.Addresses) && a.NodeInfo == b.NodeInfo &&
		a.DaemonEndpoints == b.DaemonEndpoints &&
		equality.Semantic.DeepEqual(a.RuntimeHandlers, b.RuntimeHandlers) &&
		equality.Semantic.DeepEqual(a.Features, b.Features) &&
		slices.Equal(a.DeclaredFeatures, b.DeclaredFeatures)
}

// maxImageNames bounds the names of an image in a Node, as in kubelet: the scheduler reads them, and the
// object must stay small.
const maxImageNames = 5

// nodeImages are the largest images, at most limit, or all if it is -1.
func nodeImages(images []*cri.Image, limit int) []v1.ContainerImage {
	if limit < 0 {
		limit = len(images)
	}

	images = slices.Clone(images)
	slices.SortFunc(
		images,
		func(a, b *cri.Image) int { return int(min(max(int64(b.Size)-int64(a.Size), -1), 1)) },
	)

	var out []v1.ContainerImage
	for _, i := range images[:min(len(images), limit)] {
		names := append(slices.Clone(i.RepoDigests), i.RepoTags...)
		out = append(
			out,
			v1.ContainerImage{Names: names[:min(len(names), maxImageNames)], SizeBytes: int64(i.Size)},
		)
	}

	return out
}
