package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

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

func TestErrorsHaveTheirCodes(t *testing.T) {
	cases := []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{record.ErrNotFound, codes.NotFound},
		{image.ErrNotFound, codes.NotFound},
		{errors.Join(sandbox.ErrNotReady, record.ErrNotFound), codes.NotFound},
		{sandbox.ErrNotReady, codes.FailedPrecondition},
		{container.ErrNotRunning, codes.FailedPrecondition},
		{sandbox.ErrInvalid, codes.InvalidArgument},
		{streaming.ErrTimeout, codes.DeadlineExceeded},
		{streaming.ErrTooManyStreams, codes.ResourceExhausted},
		{errors.Join(registry.ErrDenied, context.Canceled), codes.Canceled},
		{registry.ErrDenied, codes.PermissionDenied},
		{unix.ENOSPC, codes.ResourceExhausted},
		{errors.New("anything else"), codes.Unknown},
		{status.Error(codes.DataLoss, "chosen before"), codes.DataLoss},
	}

	for _, c := range cases {
		err := c.err
		if err != nil && status.Code(err) == codes.Unknown {
			err = fmt.Errorf("create container x: %w", err)
		}
		if got := status.Code(toStatus(err)); got != c.want {
			t.Errorf("%v has code %s, want %s", c.err, got, c.want)
		}
	}
}

func TestErrorsAreBounded(t *testing.T) {
	err := toStatus(errors.Join(errors.New("pull x: "+strings.Repeat("ö", 1<<20)), registry.ErrDenied))
	text := status.Convert(err).Message()
	if status.Code(err) != codes.PermissionDenied || len(text) > 5<<10 ||
		!strings.HasPrefix(text, "pull x") ||
		!strings.HasSuffix(text, "access denied") || !utf8.ValidString(text) {
		t.Errorf("%v with %d bytes", status.Code(err), len(text))
	}
}

// serverStream is a stream of which only the context is used.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s serverStream) Context() context.Context { return s.ctx }

func TestEachFailedCallIsLoggedOnceWithItsObject(t *testing.T) {
	gone := fmt.Errorf("container c1: %w", record.ErrNotFound)
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "shop"},
	}
	main := &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "main"}}
	for _, c := range []struct {
		method, level, object string
		request               any
	}{
		{"StartContainer", "WARN", "c1", &runtimeapi.StartContainerRequest{ContainerId: "c1"}},
		{"ContainerStatus", "DEBUG", "c1", &runtimeapi.ContainerStatusRequest{ContainerId: "c1"}},
		{"PodSandboxStatus", "DEBUG", "s1", &runtimeapi.PodSandboxStatusRequest{PodSandboxId: "s1"}},
		{"RunPodSandbox", "WARN", "shop/web", &runtimeapi.RunPodSandboxRequest{Config: pod}},
		{
			"CreateContainer",
			"WARN",
			"s1/main",
			&runtimeapi.CreateContainerRequest{PodSandboxId: "s1", Config: main},
		},
		{
			"PullImage",
			"WARN",
			"app:1",
			&runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "app:1"}},
		},
	} {
		var log bytes.Buffer
		options := &slog.HandlerOptions{Level: slog.LevelDebug}
		o := newObserver(slog.New(slog.NewTextHandler(&log, options)), nil)
		call := &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/" + c.method}
		_, err := o.unary(
			t.Context(),
			c.request,
			call,
			func(context.Context, any) (any, error) { return nil, gone },
		)
		if status.Code(err) != codes.NotFound {
			t.Errorf("%s: %v", c.method, err)
		}

		line := log.String()
		if strings.Count(line, "\n") != 1 {
			t.Errorf("%s: logged %q", c.method, line)
		}

		for _, want := range []string{
			"level=" + c.level,
			"method=" + c.method,
			"object=" + c.object,
			"code=NotFound",
			"container c1: not found",
		} {
			if !strings.Contains(line, want) {
				t.Errorf("%s: %q is not in %q", c.method, want, line)
			}
		}
	}
}

func TestStreamsHaveCodesAndALogLine(t *testing.T) {
	var log bytes.Buffer
	o := newObserver(slog.New(slog.NewTextHandler(&log, nil)), nil)
	stream := serverStream{ctx: t.Context()}
	call := &grpc.StreamServerInfo{FullMethod: "/runtime.v1.RuntimeService/GetContainerEvents"}

	err := o.stream(nil, stream, call, func(any, grpc.ServerStream) error { return errSlow })
	if status.Code(err) != codes.ResourceExhausted ||
		!strings.Contains(log.String(), "method=GetContainerEvents") {
		t.Errorf("%v, logged %q", err, log.String())
	}

	log.Reset()
	err = o.stream(nil, stream, call, func(any, grpc.ServerStream) error { return nil })
	if err != nil || log.Len() > 0 {
		t.Errorf("a stream that succeeds: %v, logged %q", err, log.String())
	}
}
