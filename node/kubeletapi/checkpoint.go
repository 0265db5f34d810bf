package kubeletapi

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bounds of a checkpoint's time: kubelet's default, and what a caller may ask for at most.
const (
	checkpointTime    = 2 * time.Minute
	maxCheckpointTime = time.Hour
)

// checkpoint has the runtime write the state of a container into a file of the node.
func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) {
	namespace, name, container := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	pod, err := s.pod(namespace, name, "")
	if err != nil {
		fail(w, err)
		return
	}

	if !hasContainer(pod, container) {
		fail(w, notFound("container %v does not exist", container))
		return
	}

	limit, err := checkpointLimit(r.URL.Query()["timeout"])
	if err != nil {
		fail(w, err)
		return
	}

	location := filepath.Join(s.cfg.CheckpointDir,
		fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", name, namespace, container,
			time.Now().Format(time.RFC3339)))
	id, err := s.runningContainer(r.Context(), pod, container)
	if err == nil {
		err = s.write(r.Context(), id, location, limit)
	}

	if err != nil {
		fail(w, fmt.Errorf("checkpointing of %v/%v/%v failed (%w)", namespace, name, container, err))
		return
	}

	writeJSON(w, map[string][]string{"items": {location}})
}

// write has the runtime write a checkpoint.
func (s *Server) write(ctx context.Context, id, location string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := s.cfg.Runtime.CheckpointContainer(ctx, &cri.CheckpointContainerRequest{
		ContainerId: id,
		Location:    location,
		Timeout:     int64(limit / time.Second),
	})
	return err
}

// checkpointLimit is the time that the caller gives the runtime, in seconds; the last of several counts,
// and less than the default is the default.
func checkpointLimit(values []string) (time.Duration, error) {
	if len(values) == 0 {
		return checkpointTime, nil
	}
	seconds, err := strconv.ParseInt(values[len(values)-1], 10, 64)
	if err != nil || seconds < 0 {
		// kubelet's code and text
		return 0, notFound("cannot parse value of timeout parameter")
	}
	limit := min(time.Duration(min(seconds, int64(maxCheckpointTime/time.Second)))*time.Second,
		maxCheckpointTime)
	return max(limit, checkpointTime), nil
}
