package server

import (
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
)

// Events hands changes on to the streams of GetContainerEvents. A stream that does not read loses events (they are hints; kubelet relists),
// so nobody waits for it.
type Events struct {
	mu      sync.Mutex // guards all below
	streams map[chan container.Event]bool
}

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
		}
	}
}

// sandbox tells of a sandbox: in CRI's events it goes by its own ID as a container does.
func (e *Events) sandbox(s *Server, id string, kind runtimeapi.ContainerEventType) {
	event := container.Event{ID: id, Sandbox: id, Type: kind, At: now()}
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
func (s *Server) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream runtimeapi.RuntimeService_GetContainerEventsServer) error {
	events, done := s.cfg.Events.open()
	defer done()
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case e := <-events:
			if err := stream.Send(s.event(e)); err != nil {
				return err
			}
		}
	}
}

// event adds how the whole pod is now.
func (s *Server) event(e container.Event) *runtimeapi.ContainerEventResponse {
	resp := &runtimeapi.ContainerEventResponse{ContainerId: e.ID, ContainerEventType: e.Type, CreatedAt: e.At.UnixNano()}
	if box, err := s.cfg.Sandboxes.Get(e.Sandbox); err == nil {
		resp.PodSandboxStatus = podStatus(box)
	}
	for _, c := range s.cfg.Containers.Of(e.Sandbox) {
		resp.ContainersStatuses = append(resp.ContainersStatuses, containerStatus(c))
	}
	return resp
}
