package agent

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/node/runtime"
)

// conns are connections to the container runtime.
type conns []*grpc.ClientConn

func (c conns) close() {
	for _, one := range c {
		one.Close()
	}
}

// reconnect finds a runtime that was restarted again at once: gRPC's default waits up to two minutes.
func reconnect() grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		MinConnectTimeout: time.Second,
		Backoff: backoff.Config{
			BaseDelay:  50 * time.Millisecond,
			Multiplier: 1.6,
			MaxDelay:   time.Second,
		},
	})
}

// dialRuntime makes the client of the container runtime. It does not connect yet.
func (s *surroundings) dialRuntime() (conns, error) {
	rt, err := socket.Dial(s.cfg.RuntimeEndpoint, reconnect())
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}
	all, images := conns{rt}, rt
	if s.cfg.ImageEndpoint != s.cfg.RuntimeEndpoint {
		if images, err = socket.Dial(s.cfg.ImageEndpoint, reconnect()); err != nil {
			all.close()
			return nil, &program.UsageError{Err: err}
		}
		all = append(all, images)
	}
	s.runtime = runtime.New(rt, images, s.log)
	return all, nil
}

// runtimeCheck is how often it is asked whether the runtime has come up.
const runtimeCheck = 200 * time.Millisecond

// awaitRuntime waits until the runtime answers.
func (s *surroundings) awaitRuntime(ctx context.Context) error {
	logged := false
	for range retry.Every(ctx, runtimeCheck) {
		info, err := s.runtime.Info(ctx)
		if err == nil {
			s.info = info
			return nil
		}
		if !logged && ctx.Err() == nil {
			s.log.Warn("waiting for the container runtime", "endpoint", s.cfg.RuntimeEndpoint, "err", err)
			logged = true
		}
	}
	return context.Cause(ctx)
}
