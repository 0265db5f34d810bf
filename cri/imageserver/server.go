// Package imageserver speaks the ImageService of CRI v1 for cri/image: translation and gRPC codes, nothing
// else.
package imageserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/rootfs"
)

// Server implements runtime.ImageServiceServer.
type Server struct {
	runtime.UnimplementedImageServiceServer
	images  *image.Store
	rootfss *rootfs.Manager
}

// New serves images; rootfss tells what containers wrote.
func New(images *image.Store, rootfss *rootfs.Manager) *Server {
	return &Server{images: images, rootfss: rootfss}
}

// streamBatch keeps each message of StreamImages far below gRPC's limit.
const streamBatch = 500

// ListImages lists all images, or the one that the filter names.
func (s *Server) ListImages(
	_ context.Context,
	r *runtime.ListImagesRequest,
) (*runtime.ListImagesResponse, error) {
	list, err := s.list(r.GetFilter())
	return &runtime.ListImagesResponse{Images: list}, coded(err)
}

// StreamImages is ListImages in batches (KEP-5825).
func (s *Server) StreamImages(
	r *runtime.StreamImagesRequest,
	stream grpc.ServerStreamingServer[runtime.StreamImagesResponse],
) error {
	list, err := s.list(r.GetFilter())
	if err != nil {
		return coded(err)
	}

	for len(list) > 0 {
		n := min(len(list), streamBatch)
		if err := stream.Send(&runtime.StreamImagesResponse{Images: list[:n]}); err != nil {
			return err
		}

		list = list[n:]
	}

	return nil
}

func (s *Server) list(filter *runtime.ImageFilter) (out []*runtime.Image, err error) {
	if name := filter.GetImage().GetImage(); name != "" {
		img, err := s.images.Get(name)
		if errors.Is(err, image.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}

		return []*runtime.Image{Proto(img)}, nil
	}

	for _, img := range s.images.List() {
		out = append(out, Proto(img))
	}

	return out, nil
}

// ImageStatus tells about one image; an image that is not there is an answer without image, not an error.
func (s *Server) ImageStatus(
	_ context.Context,
	r *runtime.ImageStatusRequest,
) (*runtime.ImageStatusResponse, error) {
	name, err := named(r.GetImage())
	if err != nil {
		return nil, err
	}

	img, err := s.images.Get(name)
	if errors.Is(err, image.ErrNotFound) {
		return &runtime.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, coded(err)
	}

	response := &runtime.ImageStatusResponse{Image: Proto(img)}
	if r.GetVerbose() {
		info, err := json.Marshal(struct {
			ChainID   string          `json:"chainID"`
			ImageSpec json.RawMessage `json:"imageSpec"`
		}{"sha256:" + last(img.Chain), img.RawConfig})
		if err != nil {
			return nil, coded(err)
		}

		response.Info = map[string]string{"info": string(info)}
	}

	return response, nil
}

// PullImage pulls an image; image_ref of the answer is its ID.
func (s *Server) PullImage(
	ctx context.Context,
	r *runtime.PullImageRequest,
) (*runtime.PullImageResponse, error) {
	name, err := named(r.GetImage())
	if err != nil {
		return nil, err
	}

	auth, err := authOf(r.GetAuth())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "credentials for %s: %v", name, err)
	}

	img, err := s.images.Pull(ctx, name, auth)
	if err != nil {
		return nil, coded(err)
	}

	return &runtime.PullImageResponse{ImageRef: img.ID}, nil
}

// RemoveImage removes an image with all its names; one that is not there is success.
func (s *Server) RemoveImage(
	_ context.Context,
	r *runtime.RemoveImageRequest,
) (*runtime.RemoveImageResponse, error) {
	name, err := named(r.GetImage())
	if err != nil {
		return nil, err
	}
	return &runtime.RemoveImageResponse{}, coded(s.images.Remove(name))
}

// ImageFsInfo tells what images and containers take on the disk.
func (s *Server) ImageFsInfo(
	context.Context,
	*runtime.ImageFsInfoRequest,
) (*runtime.ImageFsInfoResponse, error) {
	bytes, inodes := s.images.Usage()
	written, err := s.rootfss.TotalUsage()
	if err != nil {
		return nil, coded(fmt.Errorf("usage of the containers: %w", err))
	}
	return &runtime.ImageFsInfoResponse{
		ImageFilesystems: []*runtime.FilesystemUsage{usage(s.images.Dir(), bytes, inodes)},
		ContainerFilesystems: []*runtime.FilesystemUsage{
			usage(s.rootfss.Dir(), written.Bytes, written.Inodes),
		},
	}, nil
}

func usage(dir string, bytes, inodes int64) *runtime.FilesystemUsage {
	return &runtime.FilesystemUsage{
		Timestamp:  time.Now().UnixNano(),
		FsId:       &runtime.FilesystemIdentifier{Mountpoint: dir},
		UsedBytes:  &runtime.UInt64Value{Value: uint64(bytes)},
		InodesUsed: &runtime.UInt64Value{Value: uint64(inodes)},
	}
}

// Proto is an image in the terms of CRI.
func Proto(img image.Image) *runtime.Image {
	p := &runtime.Image{
		Id:          img.ID,
		RepoTags:    img.Tags,
		RepoDigests: img.Digests,
		Size:        uint64(img.Size),
		Pinned:      img.Pinned,
		Spec:        &runtime.ImageSpec{Image: img.ID},
	}

	user, _, _ := strings.Cut(img.Config.Config.User, ":")
	if user == "" {
		return p
	}

	if uid, err := strconv.ParseInt(user, 10, 64); err == nil {
		p.Uid = &runtime.Int64Value{Value: uid}
	} else {
		p.Username = user
	}

	return p
}

func named(spec *runtime.ImageSpec) (string, error) {
	if spec.GetImage() == "" {
		return "", status.Error(codes.InvalidArgument, "no image is named")
	}
	return spec.GetImage(), nil
}

func authOf(a *runtime.AuthConfig) (registry.Auth, error) {
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

func last(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1]
}
