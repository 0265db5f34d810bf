package runtime

import (
	"context"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Info is what the runtime says of itself.
type Info struct {
	Name, Version          string
	RuntimeReady           bool
	NetworkReady           bool
	RuntimeWhy, NetworkWhy string // reason and message of the two conditions
	Handlers               []v1.NodeRuntimeHandler
	Features               *v1.NodeFeatures // nil if the runtime does not say
}

// SupplementalGroupsPolicy reports whether the runtime keeps to a pod's supplementalGroupsPolicy.
func (i Info) SupplementalGroupsPolicy() bool {
	return i.Features != nil && i.Features.SupplementalGroupsPolicy != nil &&
		*i.Features.SupplementalGroupsPolicy
}

// Info asks for the runtime's version, conditions and features.
func (c *Client) Info(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()

	v, err := c.runtime.Version(ctx, &cri.VersionRequest{Version: "v1"})
	if err != nil {
		return Info{}, plain(err)
	}

	s, err := c.runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return Info{}, plain(err)
	}

	out := Info{
		Name:     v.RuntimeName,
		Version:  v.RuntimeVersion,
		Handlers: handlers(s.RuntimeHandlers),
	}
	if f := s.Features; f != nil {
		out.Features = &v1.NodeFeatures{SupplementalGroupsPolicy: new(f.SupplementalGroupsPolicy)}
	}

	for _, cond := range s.GetStatus().GetConditions() {
		why := cond.Reason + ": " + cond.Message
		switch cond.Type {
		case cri.RuntimeReady:
			out.RuntimeReady, out.RuntimeWhy = cond.Status, why
		case cri.NetworkReady:
			out.NetworkReady, out.NetworkWhy = cond.Status, why
		}
	}

	return out, nil
}

func handlers(all []*cri.RuntimeHandler) []v1.NodeRuntimeHandler {
	var out []v1.NodeRuntimeHandler
	for _, h := range all {
		one := v1.NodeRuntimeHandler{Name: h.Name}
		if f := h.Features; f != nil {
			one.Features = &v1.NodeRuntimeHandlerFeatures{
				RecursiveReadOnlyMounts: new(f.RecursiveReadOnlyMounts),
				UserNamespaces:          new(f.UserNamespaces),
			}
		}

		out = append(out, one)
	}

	return out
}

// CgroupDriver returns the driver that the runtime uses: "systemd", "cgroupfs", or empty when it does not
// say.
func (c *Client) CgroupDriver(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()

	r, err := c.runtime.RuntimeConfig(ctx, &cri.RuntimeConfigRequest{})
	if err != nil || r.GetLinux() == nil {
		return ""
	}
	if r.Linux.CgroupDriver == cri.CgroupDriver_SYSTEMD {
		return "systemd"
	}
	return "cgroupfs"
}

// UpdatePodCIDR gives the runtime the node's ranges of pod addresses, separated by commas.
func (c *Client) UpdatePodCIDR(ctx context.Context, cidrs string) error {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()

	_, err := c.runtime.UpdateRuntimeConfig(ctx, &cri.UpdateRuntimeConfigRequest{
		RuntimeConfig: &cri.RuntimeConfig{NetworkConfig: &cri.NetworkConfig{PodCidr: cidrs}},
	})
	return plain(err)
}
