package server

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/streaming"
)

// errInvalid is a request that cannot be served, now or later.
var errInvalid = errors.New("invalid request")

// errorCodes is the one place where gRPC codes are chosen. Kubelet and crictl tell a missing object
// (NOT_FOUND) and a call that may be repeated from a failure by them. The first error that matches counts: a
// pull that was cancelled may have been denied by one of several mirrors before.
var errorCodes = []struct {
	err  error
	code codes.Code
}{
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{streaming.ErrTimeout, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
	{errInvalid, codes.InvalidArgument},
	{sandbox.ErrInvalid, codes.InvalidArgument},
	{container.ErrInvalid, codes.InvalidArgument},
	{registry.ErrDenied, codes.PermissionDenied},
	{record.ErrNotFound, codes.NotFound},
	{image.ErrNotFound, codes.NotFound},
	{registry.ErrNotFound, codes.NotFound},
	{container.ErrNotRunning, codes.FailedPrecondition},
	{container.ErrInUse, codes.FailedPrecondition},
	{sandbox.ErrNotReady, codes.FailedPrecondition},
	{streaming.ErrTooManyStreams, codes.ResourceExhausted},
	{errSlow, codes.ResourceExhausted},
	{unix.ENOSPC, codes.ResourceExhausted},
	{unix.EDQUOT, codes.ResourceExhausted},
}

// toStatus returns the error that the client gets.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}

	for _, c := range errorCodes {
		if errors.Is(err, c.err) {
			return status.Error(c.code, bounded(err.Error()))
		}
	}

	return status.Error(codes.Unknown, bounded(err.Error()))
}

// bounded cuts an error in the middle: registries, images and OCI runtimes have a part in it, and it becomes
// an event of the pod.
func bounded(text string) string {
	const limit = 4 << 10
	if len(text) <= limit {
		return text
	}
	head, tail := text[:limit/2], text[len(text)-limit/2:]
	return strings.ToValidUTF8(head, "") + " ... " + strings.ToValidUTF8(tail, "")
}

// observer gives the error of each call its code, reports each call that has ended, and logs each failed one
// once.
type observer struct {
	log   *slog.Logger
	ended func(method string, code codes.Code, took time.Duration)
}

func newObserver(log *slog.Logger, ended func(string, codes.Code, time.Duration)) observer {
	if ended == nil {
		ended = func(string, codes.Code, time.Duration) {}
	}
	return observer{log: log, ended: ended}
}

func (o observer) unary(
	ctx context.Context, req any, call *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (any, error) {
	began := time.Now()
	resp, err := next(ctx, req)
	err = toStatus(err)
	o.ended(call.FullMethod, status.Code(err), time.Since(began))
	if err != nil {
		o.failed(ctx, call.FullMethod, object(req), began, err)
		return nil, err
	}
	return resp, nil
}

func (o observer) stream(
	srv any, stream grpc.ServerStream, call *grpc.StreamServerInfo, next grpc.StreamHandler,
) error {
	began := time.Now()
	err := toStatus(next(srv, stream))
	o.ended(call.FullMethod, status.Code(err), time.Since(began))
	if err != nil {
		o.failed(stream.Context(), call.FullMethod, "", began, err)
	}
	return err
}

func (o observer) failed(ctx context.Context, fullMethod, object string, began time.Time, err error) {
	method, failure := path.Base(fullMethod), status.Convert(err)
	o.log.Log(ctx, level(method, failure.Code()), "call failed",
		"method", method,
		"object", object,
		"code", failure.Code().String(),
		"duration", time.Since(began),
		"err", failure.Message(),
	)
}

// polls are the calls by which clients look whether an object still exists.
var polls = map[string]bool{
	"PodSandboxStatus": true,
	"ContainerStatus":  true,
	"PodSandboxStats":  true,
	"ContainerStats":   true,
}

// level returns Debug for what is the usual answer to a poll, or to a client that tries out which calls there
// are.
func level(method string, code codes.Code) slog.Level {
	if code == codes.Unimplemented || code == codes.NotFound && polls[method] {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// object returns what a request is about: an ID or a name; "" if nothing of the kind.
func object(req any) string {
	switch r := req.(type) {
	case *runtimeapi.RunPodSandboxRequest:
		meta := r.GetConfig().GetMetadata()
		return meta.GetNamespace() + "/" + meta.GetName()
	case *runtimeapi.CreateContainerRequest:
		return r.GetPodSandboxId() + "/" + r.GetConfig().GetMetadata().GetName()
	case interface{ GetContainerId() string }:
		return r.GetContainerId()
	case interface{ GetPodSandboxId() string }:
		return r.GetPodSandboxId()
	case interface{ GetImage() *runtimeapi.ImageSpec }:
		return r.GetImage().GetImage()
	}

	return ""
}
