package heartbeat

import (
	"context"
	"maps"
	goruntime "runtime"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

// initial is the Node as it is registered.
func (h *Heart) initial(ctx context.Context) (*v1.Node, error) {
	labels := map[string]string{v1.LabelHostname: h.cfg.Hostname, v1.LabelOSStable: "linux", v1.LabelArchStable: goruntime.GOARCH,
		"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": goruntime.GOARCH}
	maps.Copy(labels, h.cfg.Labels)
	n := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: h.cfg.Name, Labels: labels,
			Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
		Spec: v1.NodeSpec{ProviderID: h.cfg.ProviderID, Taints: h.cfg.Taints},
	}
	info, runtimeErr := h.runtime.Info(ctx)
	if err := h.describe(&n.Status, info); err != nil {
		return nil, err
	}
	apply(&n.Status, h.inspect(info, runtimeErr), metav1.Now().Time)
	return n, nil
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
	maps.Copy(s.Capacity, c) // others (device plugins) may have added their own
	maps.Copy(s.Allocatable, minus(c, h.cfg.Reserved))
	s.Addresses = nil
	for _, ip := range h.cfg.IPs {
		s.Addresses = append(s.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip})
	}
	s.Addresses = append(s.Addresses, v1.NodeAddress{Type: v1.NodeHostName, Address: h.cfg.Hostname})
	s.DaemonEndpoints.KubeletEndpoint.Port = h.cfg.Port
	s.NodeInfo = systemInfo()
	s.NodeInfo.KubeletVersion = h.cfg.Version
	if info.Name != "" {
		s.NodeInfo.ContainerRuntimeVersion = info.Name + "://" + info.Version
	}
	s.DeclaredFeatures = slices.Clone(declaredFeatures)
	s.RuntimeHandlers = nil
	for _, r := range info.Handlers {
		handler := v1.NodeRuntimeHandler{Name: r.Name}
		if f := r.Features; f != nil {
			handler.Features = &v1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: new(f.RecursiveReadOnlyMounts), UserNamespaces: new(f.UserNamespaces)}
		}
		s.RuntimeHandlers = append(s.RuntimeHandlers, handler)
	}
	if info.Features != nil {
		s.Features = &v1.NodeFeatures{SupplementalGroupsPolicy: new(info.Features.SupplementalGroupsPolicy)}
	}
	return nil
}

// declaredFeatures are those that the scheduler looks for on a node and that this agent has (KEP-5328). What is not named here, such as resizing
// in place, keeps pods that need it away.
var declaredFeatures = []string{"RestartAllContainersOnContainerExits"}

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
	return equality.Semantic.DeepEqual(a.Capacity, b.Capacity) && equality.Semantic.DeepEqual(a.Allocatable, b.Allocatable) &&
		equality.Semantic.DeepEqual(a.Addresses, b.Addresses) && a.NodeInfo == b.NodeInfo && a.DaemonEndpoints == b.DaemonEndpoints &&
		equality.Semantic.DeepEqual(a.RuntimeHandlers, b.RuntimeHandlers) && equality.Semantic.DeepEqual(a.Features, b.Features) &&
		slices.Equal(a.DeclaredFeatures, b.DeclaredFeatures)
}

// Limits of the list of images in a Node, as kubelet has them: the scheduler reads it, and the object must stay small.
const (
	maxImages     = 50
	maxImageNames = 5
)

func nodeImages(images []*cri.Image) []v1.ContainerImage {
	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b *cri.Image) int { return int(min(max(int64(b.Size)-int64(a.Size), -1), 1)) })
	var out []v1.ContainerImage
	for _, i := range images[:min(len(images), maxImages)] {
		names := append(slices.Clone(i.RepoDigests), i.RepoTags...)
		out = append(out, v1.ContainerImage{Names: names[:min(len(names), maxImageNames)], SizeBytes: int64(i.Size)})
	}
	return out
}
