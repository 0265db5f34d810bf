// Package server serves CRI v1, the RuntimeService and the ImageService, for the packages that do the work:
// it translates requests and answers, chooses the gRPC code of each error (codes.go), and orders how a pod's
// containers and its sandbox end.
package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/stats"
	"github.com/trivet-node/trivet/internal/trace"
)

// Network is the pod network.
type Network interface {
	// Ready returns nil if pods can be joined, else why not.
	Ready(ctx context.Context) error
}

// Config is what a Server needs.
type Config struct {
	// Version is trivet-cri's.
	Version string

	Sandboxes  *sandbox.Service
	Containers *container.Service
	Images     Images
	Network    Network
	Streams    Streams
	Stats      *stats.Reader
	Events     *event.Hub
	Driver     cgroupdriver.Driver

	// Handlers are the runtime handlers.
	Handlers ociruntime.Handlers

	// Info is the configuration that a verbose status shows.
	Info any

	// Traces makes spans of the calls; nil: none.
	Traces *trace.Provider

	// Calls is told about each call when it has ended. It may be nil.
	Calls func(method string, code codes.Code, took time.Duration)

	Log *slog.Logger
}

// Server serves CRI.
type Server struct {
	cfg Config
}

// New returns a Server. It starts nothing.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// maxMessage is the largest gRPC message that kubelet takes, in bytes.
const maxMessage = 16 << 20

// GRPC returns a gRPC server with both services.
func (s *Server) GRPC() *grpc.Server {
	o := newObserver(s.cfg.Log, s.cfg.Calls)
	g := grpc.NewServer(append(s.cfg.Traces.ServerOptions(),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.UnaryInterceptor(o.unary),
		grpc.StreamInterceptor(o.stream),
	)...)

	runtimeapi.RegisterRuntimeServiceServer(g, s.runtimeService())
	runtimeapi.RegisterImageServiceServer(g, &imageService{
		images:     s.cfg.Images,
		containers: s.cfg.Containers,
		stats:      s.cfg.Stats,
	})

	return g
}

// runtimeService is the RuntimeService, whose calls are grouped by what they are about.
type runtimeService struct {
	nodeCalls
	sandboxCalls
	containerCalls
	execCalls
	statsCalls
	eventCalls
	unservedCalls
}

func (s *Server) runtimeService() *runtimeService {
	sandboxes, containers := s.cfg.Sandboxes, s.cfg.Containers
	return &runtimeService{
		nodeCalls:      nodeCalls{cfg: s.cfg},
		sandboxCalls:   sandboxCalls{sandboxes: sandboxes, containers: containers},
		containerCalls: containerCalls{containers: containers},
		execCalls:      execCalls{sandboxes: sandboxes, containers: containers, streams: s.cfg.Streams},
		statsCalls:     statsCalls{sandboxes: sandboxes, containers: containers, stats: s.cfg.Stats},
		eventCalls:     eventCalls{sandboxes: sandboxes, containers: containers, events: s.cfg.Events},
	}
}

// pieceSize is how many objects go into one message of a streamed list (KEP-5825), far below maxMessage.
const pieceSize = 500

// sendPieces sends a list in pieces.
func sendPieces[T any](list []T, send func(piece []T) error) error {
	for piece := range slices.Chunk(list, pieceSize) {
		if err := send(piece); err != nil {
			return err
		}
	}
	return nil
}

// matches reports whether labels have all values of a selector.
func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// info returns the Info of a verbose answer: a value as JSON under a key.
func info(key string, value any) map[string]string {
	data, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	return map[string]string{key: string(data)}
}
