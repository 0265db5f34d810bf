package runtime

import (
	"context"
	"errors"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Image returns the runtime's reference of an image that is present, or an empty string.
func (c *Client) Image(ctx context.Context, spec *cri.ImageSpec) (*cri.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.Images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec})
	if err != nil {
		return nil, plain(err)
	}
	return r.Image, nil
}

// Pull fetches an image and returns the runtime's reference of it. It takes as long as it takes: cancel ctx
// to give up.
func (c *Client) Pull(
	ctx context.Context,
	spec *cri.ImageSpec,
	auth *cri.AuthConfig,
	pod *cri.PodSandboxConfig,
) (string, error) {
	r, err := c.Images.PullImage(ctx, &cri.PullImageRequest{Image: spec, Auth: auth, SandboxConfig: pod})
	if err != nil {
		return "", plain(err)
	}
	return r.ImageRef, nil
}

// ListImages lists all images.
func (c *Client) ListImages(ctx context.Context) ([]*cri.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.Images.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return nil, plain(err)
	}
	return r.Images, nil
}

// ImageDir is a directory of the file system that holds the images.
func (c *Client) ImageDir(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	r, err := c.Images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil {
		return "", plain(err)
	}

	for _, fs := range r.ImageFilesystems {
		if dir := fs.GetFsId().GetMountpoint(); dir != "" {
			return dir, nil
		}
	}

	return "", errors.New("the runtime names no file system of images")
}

// Info is what the runtime says of itself.
type Info struct {
	Name, Version          string
	RuntimeReady           bool
	NetworkReady           bool
	RuntimeWhy, NetworkWhy string
	Handlers               []*cri.RuntimeHandler
	Features               *cri.RuntimeFeatures
}

// Info asks for the runtime's version and conditions.
func (c *Client) Info(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	v, err := c.Runtime.Version(ctx, &cri.VersionRequest{Version: "v1"})
	if err != nil {
		return Info{}, plain(err)
	}

	s, err := c.Runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return Info{}, plain(err)
	}

	out := Info{
		Name:     v.RuntimeName,
		Version:  v.RuntimeVersion,
		Handlers: s.RuntimeHandlers,
		Features: s.Features,
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

// CgroupDriver is the driver that the runtime uses: "systemd", "cgroupfs", or empty when it does not tell.
func (c *Client) CgroupDriver(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := c.Runtime.RuntimeConfig(ctx, &cri.RuntimeConfigRequest{})
	if err != nil || r.GetLinux() == nil {
		return ""
	}
	if r.Linux.CgroupDriver == cri.CgroupDriver_SYSTEMD {
		return "systemd"
	}
	return "cgroupfs"
}

// UpdatePodCIDR tells the runtime the node's pod ranges.
func (c *Client) UpdatePodCIDR(ctx context.Context, cidrs string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := c.Runtime.UpdateRuntimeConfig(ctx, &cri.UpdateRuntimeConfigRequest{RuntimeConfig: &cri.RuntimeConfig{
		NetworkConfig: &cri.NetworkConfig{PodCidr: cidrs}}})
	return plain(err)
}
