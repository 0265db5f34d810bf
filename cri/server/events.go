package server

import (
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
)

// Events hands changes on to the streams of GetContainerEvents. Nobody waits for a stream that does not read:
// when its buffer is full, it is closed, and its client knows that it has to list everything anew.
type Events struct {
	mu      sync.Mutex // guards all below
	streams map[chan container.Event]bool
}

// errSlow ends a stream whose client did not keep up.
var errSlow = status.Error(
	codes.ResourceExhausted,
	"container events: the client did not read for 1024 events; list everything and open a new stream",
)

// NewEvents makes an Events without streams.
func NewEvents() *Events { return &Events{streams: map[chan container.Event]bool{}} }

// Put tells all streams.
func (e *Events) Put(event container.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for ch := range e.streams {
		select {
		case ch <- event:
		default:
			delete(e.streams, ch)
			close(ch)
		}
	}
}

// sandbox tells of a sandbox: in CRI's events it goes by its own ID as a container does.
func (e *Events) sandbox(s *Server, id string, kind runtimeapi.ContainerEventType) {
	event := container.Event{
		ID:      id,
		Sandbox: id,
		Type:    kind,
		At:      now(),
	}
	e.Put(event)
}

func (e *Events) open() (ch chan container.Event, done func()) {
	ch = make(chan container.Event, 1024)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.streams[ch] = true
	return ch, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.streams, ch)
	}
}

// GetContainerEvents streams events until the client goes.
func (s *Server) GetContainerEvents(
	_ *runtimeapi.GetEventsRequest,
	stream runtimeapi.RuntimeService_GetContainerEventsServer,
) error {
	events, done := s.cfg.Events.open()
	defer done()

	for {
		select {
		case <-stream.Context().Done():
			return nil
		case e, open := <-events:
			if !open {
				return errSlow
			}
			if err := stream.Send(s.event(e)); err != nil {
				return err
			}
		}
	}
}

// event adds how the whole pod is now.
func (s *Server) event(e container.Event) *runtimeapi.ContainerEventResponse {
	resp := &runtimeapi.ContainerEventResponse{
		ContainerId:        e.ID,
		ContainerEventType: e.Type,
		CreatedAt:          e.At.UnixNano(),
	}
	if box, err := s.cfg.Sandboxes.Get(e.Sandbox); err == nil {
		resp.PodSandboxStatus = podStatus(box)
	}

	for _, c := range s.cfg.Containers.Of(e.Sandbox) {
		resp.ContainersStatuses = append(resp.ContainersStatuses, containerStatus(c))
	}

	return resp
}
