package runtime

import (
	"cmp"
	"context"
	"errors"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Images is the client of CRI's image service.
type Images struct {
	service cri.ImageServiceClient
}

// ImageSpec names an image.
type ImageSpec struct {
	Image              string            // a reference, or an ID of the runtime's
	UserSpecifiedImage string            // as the pod's author wrote it
	Annotations        map[string]string // of the pod
}

func (s ImageSpec) cri() *cri.ImageSpec {
	return &cri.ImageSpec{
		Image:              s.Image,
		UserSpecifiedImage: s.UserSpecifiedImage,
		Annotations:        s.Annotations,
	}
}

// Image is an image that the runtime has.
type Image struct {
	ID          string
	RepoTags    []string
	RepoDigests []string
	Size        uint64 // bytes
	Pinned      bool   // the runtime wants it to stay
	UID         *int64 // whom its processes run as, if that is a number
	Username    string // or a name; neither of them: root
}

func imageOf(i *cri.Image) *Image {
	out := &Image{
		ID:          i.Id,
		RepoTags:    i.RepoTags,
		RepoDigests: i.RepoDigests,
		Size:        i.Size,
		Pinned:      i.Pinned,
		Username:    i.Username,
	}
	if i.Uid != nil {
		out.UID = new(i.Uid.Value)
	}
	return out
}

// Auth is what a pull presents to the registry. As with kubelet it names no server: the credentials were
// chosen by the image's registry, and containerd, which compares a server's name with the registry's host as
// text, would send nothing if it were a pattern, a path or a URL.
type Auth struct {
	Username      string
	Password      string
	IdentityToken string
	RegistryToken string
}

// Image returns an image, nil if the runtime does not have it.
func (i Images) Image(ctx context.Context, spec ImageSpec) (*Image, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	r, err := i.service.ImageStatus(ctx, &cri.ImageStatusRequest{Image: spec.cri()})
	if err != nil {
		return nil, plain(err)
	}
	if r.Image == nil {
		return nil, nil
	}
	return imageOf(r.Image), nil
}

// Pull fetches an image, for the sandbox of that configuration, and returns the runtime's reference of it. A
// nil auth pulls anonymously. There is no bound to how long it takes but ctx.
func (i Images) Pull(
	ctx context.Context, spec ImageSpec, auth *Auth, sandbox *SandboxConfig,
) (ref string, err error) {
	request := &cri.PullImageRequest{Image: spec.cri(), SandboxConfig: sandbox}
	if auth != nil {
		request.Auth = &cri.AuthConfig{
			Username:      auth.Username,
			Password:      auth.Password,
			IdentityToken: auth.IdentityToken,
			RegistryToken: auth.RegistryToken,
		}
	}
	r, err := i.service.PullImage(ctx, request)
	return r.GetImageRef(), plain(err)
}

// ListImages lists all images.
func (i Images) ListImages(ctx context.Context) ([]*Image, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	r, err := i.service.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return nil, plain(err)
	}

	out := make([]*Image, 0, len(r.Images))
	for _, image := range r.Images {
		out = append(out, imageOf(image))
	}

	return out, nil
}

// RemoveImage removes an image with all its names. One that is gone is a success.
func (i Images) RemoveImage(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	_, err := i.service.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: id}})
	return unlessGone(err)
}

// ImageFS returns a directory of the file system that holds the images, and how much of it they use.
func (i Images) ImageFS(ctx context.Context) (dir string, used *statsapi.FsStats, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	r, err := i.service.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil {
		return "", nil, plain(err)
	}

	for _, fs := range r.ImageFilesystems {
		if dir := fs.GetFsId().GetMountpoint(); dir != "" {
			return dir, layerStats(fs), nil
		}
	}

	return "", nil, errors.New("the runtime names no file system of images")
}

// ImageDir returns a directory of the file system that holds the images.
func (i Images) ImageDir(ctx context.Context) (string, error) {
	dir, _, err := i.ImageFS(ctx)
	return dir, err
}

// Directories returns a directory of the file system that holds the images, and one of that which holds the
// writable layers of containers. A runtime that does not name the latter has both in one.
func (i Images) Directories(ctx context.Context) (images, containers string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	r, err := i.service.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil {
		return "", "", plain(err)
	}

	images = mountpoint(r.ImageFilesystems)
	if images == "" {
		return "", "", errors.New("the runtime names no file system of images")
	}

	return images, cmp.Or(mountpoint(r.ContainerFilesystems), images), nil
}

// mountpoint returns the first directory that file systems are named by, empty if there is none.
func mountpoint(all []*cri.FilesystemUsage) string {
	for _, fs := range all {
		if dir := fs.GetFsId().GetMountpoint(); dir != "" {
			return dir
		}
	}
	return ""
}
