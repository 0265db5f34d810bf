package kubeletapi

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/trivet-node/trivet/node/podspec"
)

// Bounds of a checkpoint's time: kubelet's default, and what a caller may ask for at most.
const (
	checkpointTime    = 2 * time.Minute
	maxCheckpointTime = time.Hour
)

// checkpoint makes the runtime write the state of a container into a file of the node.
func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request) error {
	namespace, name, container := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container")
	pod, err := s.find.pod(namespace, name, "")
	if err != nil {
		return err
	}
	if podspec.Find(pod, container) == nil {
		return notFound("container %v does not exist", container)
	}

	limit, err := checkpointLimit(r.URL.Query()["timeout"])
	if err != nil {
		return err
	}

	now := time.Now().Format(time.RFC3339)
	file := fmt.Sprintf("checkpoint-%s_%s-%s-%s.tar", name, namespace, container, now)
	path := filepath.Join(s.cfg.CheckpointDir, file)
	id, err := s.find.runningContainer(r.Context(), pod, container)
	if err == nil {
		err = s.cfg.Runtime.Checkpoint(r.Context(), id, path, limit)
	}
	if err != nil {
		return fmt.Errorf("checkpointing of %v/%v/%v failed (%w)", namespace, name, container, err)
	}

	return writeJSON(w, map[string][]string{"items": {path}})
}

// checkpointLimit returns the time that the caller gives the runtime, which is in seconds. The last of
// several counts, and less than the default is the default.
func checkpointLimit(values []string) (time.Duration, error) {
	if len(values) == 0 {
		return checkpointTime, nil
	}
	seconds, err := strconv.ParseInt(values[len(values)-1], 10, 64)
	if err != nil || seconds < 0 {
		// The code and the text are kubelet's.
		return 0, notFound("cannot parse value of timeout parameter")
	}

	seconds = min(seconds, int64(maxCheckpointTime/time.Second))
	return max(time.Duration(seconds)*time.Second, checkpointTime), nil
}
