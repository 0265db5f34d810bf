package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/stats"
)

// Images is the image store.
type Images interface {
	// Get finds an image by name or ID.
	Get(name string) (image.Image, error)

	List() []image.Image
	Pull(ctx context.Context, name string, auth registry.Auth) (image.Image, error)

	// Remove removes an image with all its names. One that does not exist is success.
	Remove(name string) error

	// Usage returns what all images take on the disk.
	Usage() (bytes, inodes int64)

	// Dir is a directory of the file system that they are on.
	Dir() string
}

// imageService is the ImageService.
type imageService struct {
	runtimeapi.UnimplementedImageServiceServer
	images     Images
	containers *container.Service
	stats      *stats.Reader
}

// ListImages lists all images, or the one that the filter names.
func (s *imageService) ListImages(
	_ context.Context, r *runtimeapi.ListImagesRequest,
) (*runtimeapi.ListImagesResponse, error) {
	list, err := s.list(r.GetFilter())
	return &runtimeapi.ListImagesResponse{Images: list}, err
}

// StreamImages lists images in pieces.
func (s *imageService) StreamImages(
	r *runtimeapi.StreamImagesRequest, stream runtimeapi.ImageService_StreamImagesServer,
) error {
	list, err := s.list(r.GetFilter())
	if err != nil {
		return err
	}
	return sendPieces(list, func(piece []*runtimeapi.Image) error {
		return stream.Send(&runtimeapi.StreamImagesResponse{Images: piece})
	})
}

func (s *imageService) list(filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	list := s.images.List
	if name := filter.GetImage().GetImage(); name != "" {
		img, err := s.images.Get(name)
		if errors.Is(err, image.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}

		list = func() []image.Image { return []image.Image{img} }
	}

	var all []*runtimeapi.Image
	for _, img := range list() {
		all = append(all, imageStatus(img))
	}

	return all, nil
}

// ImageStatus returns the status of an image. One that does not exist is an answer without an image, not an
// error.
func (s *imageService) ImageStatus(
	_ context.Context, r *runtimeapi.ImageStatusRequest,
) (*runtimeapi.ImageStatusResponse, error) {
	name, err := nameOf(r.GetImage())
	if err != nil {
		return nil, err
	}

	img, err := s.images.Get(name)
	if errors.Is(err, image.ErrNotFound) {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, err
	}

	response := &runtimeapi.ImageStatusResponse{Image: imageStatus(img)}
	if r.GetVerbose() {
		response.Info = info("info", imageInfo{
			ChainID:   "sha256:" + last(img.Chain),
			ImageSpec: img.RawConfig,
		})
	}

	return response, nil
}

// imageInfo is the Info of a verbose status, with the keys of containerd.
type imageInfo struct {
	ChainID   string          `json:"chainID"`
	ImageSpec json.RawMessage `json:"imageSpec"`
}

func last(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1]
}

// PullImage pulls an image. The ImageRef of the answer is its ID.
func (s *imageService) PullImage(
	ctx context.Context, r *runtimeapi.PullImageRequest,
) (*runtimeapi.PullImageResponse, error) {
	name, err := nameOf(r.GetImage())
	if err != nil {
		return nil, err
	}

	auth, err := authOf(r.GetAuth())
	if err != nil {
		return nil, fmt.Errorf("%w: credentials for %s: %w", errInvalid, name, err)
	}

	img, err := s.images.Pull(ctx, name, auth)
	if err != nil {
		return nil, err
	}

	return &runtimeapi.PullImageResponse{ImageRef: img.ID}, nil
}

// RemoveImage removes an image with all its names. One that does not exist is success.
func (s *imageService) RemoveImage(
	_ context.Context, r *runtimeapi.RemoveImageRequest,
) (*runtimeapi.RemoveImageResponse, error) {
	name, err := nameOf(r.GetImage())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.RemoveImageResponse{}, s.images.Remove(name)
}

// ImageFsInfo returns what images and the writable layers of containers take on the disk.
func (s *imageService) ImageFsInfo(
	context.Context, *runtimeapi.ImageFsInfoRequest,
) (*runtimeapi.ImageFsInfoResponse, error) {
	bytes, inodes := s.images.Usage()
	written, dir := s.stats.Written(s.containers.List())
	images := filesystemUsage(s.images.Dir(), bytes, inodes)
	containers := filesystemUsage(dir, int64(written.Bytes), int64(written.Inodes))
	return &runtimeapi.ImageFsInfoResponse{
		ImageFilesystems:     []*runtimeapi.FilesystemUsage{images},
		ContainerFilesystems: []*runtimeapi.FilesystemUsage{containers},
	}, nil
}

func filesystemUsage(dir string, bytes, inodes int64) *runtimeapi.FilesystemUsage {
	return &runtimeapi.FilesystemUsage{
		Timestamp:  time.Now().UnixNano(),
		FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: dir},
		UsedBytes:  &runtimeapi.UInt64Value{Value: uint64(bytes)},
		InodesUsed: &runtimeapi.UInt64Value{Value: uint64(inodes)},
	}
}

// imageStatus returns an image in the terms of CRI. Its user is a number or a name.
func imageStatus(img image.Image) *runtimeapi.Image {
	status := &runtimeapi.Image{
		Id:          img.ID,
		RepoTags:    img.Tags,
		RepoDigests: img.Digests,
		Size:        uint64(img.Size),
		Pinned:      img.Pinned,
		Spec:        &runtimeapi.ImageSpec{Image: img.ID},
	}

	user, _, _ := strings.Cut(img.Config.Config.User, ":")
	if user == "" {
		return status
	}

	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		status.Uid = &runtimeapi.Int64Value{Value: uid}
	} else {
		status.Username = user
	}

	return status
}

func nameOf(spec *runtimeapi.ImageSpec) (string, error) {
	if spec.GetImage() == "" {
		return "", fmt.Errorf("%w: no image is named", errInvalid)
	}
	return spec.GetImage(), nil
}

func authOf(a *runtimeapi.AuthConfig) (registry.Auth, error) {
	if a == nil {
		return registry.Auth{}, nil
	}
	return registry.ParseAuth(registry.Auth{
		Username:      a.GetUsername(),
		Password:      a.GetPassword(),
		IdentityToken: a.GetIdentityToken(),
		RegistryToken: a.GetRegistryToken(),
		ServerAddress: a.GetServerAddress(),
	}, a.GetAuth())
}
