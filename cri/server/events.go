package server

import (
	"errors"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/sandbox"
)

// eventCalls follow the changes of containers and sandboxes.
type eventCalls struct {
	sandboxes  *sandbox.Service
	containers *container.Service
	events     *event.Hub
}

// errSlow ends a stream whose client did not keep up.
var errSlow = errors.New("list everything and open a new stream")

// GetContainerEvents sends events until the client is gone.
func (s *eventCalls) GetContainerEvents(
	_ *runtimeapi.GetEventsRequest, stream runtimeapi.RuntimeService_GetContainerEventsServer,
) error {
	events, cancel := s.events.Subscribe()
	defer cancel()

	for {
		select {
		case <-stream.Context().Done():
			return nil
		case e, open := <-events:
			if !open {
				return fmt.Errorf("the client did not read for %d events; %w", event.Buffer, errSlow)
			}
			if err := stream.Send(s.response(e)); err != nil {
				return err
			}
		}
	}
}

// response adds the present status of the whole pod.
func (s *eventCalls) response(e event.Event) *runtimeapi.ContainerEventResponse {
	resp := &runtimeapi.ContainerEventResponse{
		ContainerId:        e.ID,
		ContainerEventType: runtimeapi.ContainerEventType(e.Type),
		CreatedAt:          e.At.UnixNano(),
	}
	if pod, err := s.sandboxes.Get(e.Sandbox); err == nil {
		resp.PodSandboxStatus = sandboxStatus(pod)
	}

	for _, c := range s.containers.Of(e.Sandbox) {
		resp.ContainersStatuses = append(resp.ContainersStatuses, containerStatus(c))
	}

	return resp
}
