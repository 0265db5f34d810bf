package runtimetest

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// idPrefix makes an image's ID of its name.
const idPrefix = "id-"

// Private makes pulls of an image need a password.
func (s *Server) Private(image, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passwords[image] = password
}

// Preload makes an image present without a pull.
func (s *Server) Preload(image string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[image] = true
}

// Users returns the user name that came with each pull, in order.
func (s *Server) Users() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, auth := range s.record.auths {
		out = append(out, auth.GetUsername())
	}
	return out
}

// NamedServers returns the registry server that the credentials of each pull named, in order.
func (s *Server) NamedServers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, auth := range s.record.auths {
		out = append(out, auth.GetServerAddress())
	}
	return out
}

// ImageStatus knows images that were preloaded or pulled.
func (s imageService) ImageStatus(
	_ context.Context,
	r *cri.ImageStatusRequest,
) (*cri.ImageStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimPrefix(r.Image.Image, idPrefix)
	if !s.images[name] {
		return &cri.ImageStatusResponse{}, nil
	}
	return &cri.ImageStatusResponse{Image: imageOf(name)}, nil
}

// imageOf makes the image of a name. One whose name begins with "user" has a user, 1000.
func imageOf(name string) *cri.Image {
	out := &cri.Image{Id: idPrefix + name, RepoTags: []string{name}, Size: 1 << 20}
	if strings.HasPrefix(name, "user") {
		out.Uid = &cri.Int64Value{Value: 1000}
	}
	return out
}

// ListImages lists images that were preloaded or pulled.
func (s imageService) ListImages(context.Context, *cri.ListImagesRequest) (*cri.ListImagesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &cri.ListImagesResponse{}
	for name := range s.images {
		out.Images = append(out.Images, imageOf(name))
	}
	return out, nil
}

// PullImage makes an image present.
func (s imageService) PullImage(_ context.Context, r *cri.PullImageRequest) (*cri.PullImageResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if err := s.note("PullImage", r.Image.Image); err != nil {
		return nil, err
	}

	s.record.auths = append(s.record.auths, r.GetAuth())
	password := s.passwords[r.Image.Image]
	if password != "" && r.GetAuth().GetPassword() != password {
		return nil, status.Error(codes.Unknown, "authorization failed")
	}

	s.images[r.Image.Image] = true
	return &cri.PullImageResponse{ImageRef: idPrefix + r.Image.Image}, nil
}
