package runtimetest

import (
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// publish sends an event of a container to all listeners that keep up. The caller holds the lock.
func (s *Server) publish(id string, kind cri.ContainerEventType) {
	e := &cri.ContainerEventResponse{
		ContainerId:        id,
		ContainerEventType: kind,
		PodSandboxStatus:   copyOf(s.sandboxes[s.parents[id]]),
	}
	for l := range s.listeners {
		select {
		case l <- e:
		default:
		}
	}
}

// GetContainerEvents streams the events that happen while it is open.
func (s service) GetContainerEvents(
	_ *cri.GetEventsRequest, stream grpc.ServerStreamingServer[cri.ContainerEventResponse],
) error {
	events := make(chan *cri.ContainerEventResponse, 100)
	s.mu.Lock()
	s.listeners[events] = true
	refused := s.behaviour.fail["GetContainerEvents"]
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, events)
		s.mu.Unlock()
	}()

	if refused != nil {
		return refused
	}

	for {
		select {
		case <-stream.Context().Done():
			return nil
		case e := <-events:
			if err := stream.Send(e); err != nil {
				return err
			}
		}
	}
}
