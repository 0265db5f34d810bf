package kubeletapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/containerlog"
)

// logs serves the log of a container: query parameters are those of v1.PodLogOptions.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	options, previous, err := logOptions(r.URL.Query(), time.Now())
	if err != nil {
		fail(w, err)
		return
	}

	pod, err := s.pod(r.PathValue("namespace"), r.PathValue("pod"), "")
	if err != nil {
		fail(w, err)
		return
	}

	id, path, err := s.logFile(r.Context(), pod, r.PathValue("container"), previous)
	if err != nil {
		fail(w, err)
		return
	}

	options.Running = func(ctx context.Context) (bool, error) { return s.isRunning(ctx, id) }
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	out := flushing{w, http.NewResponseController(w)}
	if options.Follow {
		// the caller sees at once that the stream is open
		out.flush()
	}

	if err := containerlog.Read(r.Context(), path, options, out); err != nil {
		_, _ = fmt.Fprintf(w, "unable to retrieve container logs for %s: %v", id, err)
	}
}

// flushing sends each write at once.
type flushing struct {
	w http.ResponseWriter
	c *http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.c.Flush()
	}
	return n, err
}

func (f flushing) flush() { _ = f.c.Flush() }

// maxSince is the longest time in seconds that a log can be asked for: more does not fit a time.Duration, and
// no log is older.
const maxSince = 100 * 365 * 24 * 3600

// logOptions reads the query.
func logOptions(q url.Values, now time.Time) (o containerlog.Options, previous bool, err error) {
	if o.Tail, err = number(q, "tailLines", -1); err != nil {
		return o, false, err
	}
	if o.LimitBytes, err = number(q, "limitBytes", 0); err != nil {
		return o, false, err
	}
	if o.LimitBytes == 0 && q.Get("limitBytes") != "" {
		return o, false, badRequest("limitBytes must be greater than 0")
	}
	if o.Since, err = since(q, now); err != nil {
		return o, false, err
	}

	if o.Follow, err = truth(q, "follow"); err != nil {
		return o, false, err
	}
	if o.Timestamps, err = truth(q, "timestamps"); err != nil {
		return o, false, err
	}
	if o.Stream, err = stream(q); err != nil {
		return o, false, err
	}

	previous, err = truth(q, "previous")
	return o, previous, err
}

// number is a parameter that is 0 or more, or otherwise if it is not given.
func number(q url.Values, name string, otherwise int64) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, badRequest("%s %q must be a number of 0 or more", name, text)
	}
	return n, nil
}

// truth is a parameter that is true or false.
func truth(q url.Values, name string) (bool, error) {
	text := q.Get(name)
	switch strings.ToLower(text) {
	case "", "0", "false":
		return false, nil
	case "1", "true":
		return true, nil
	}
	return false, badRequest("%s %q must be true or false", name, text)
}

// since is sinceTime or, in the place of that, sinceSeconds before now; zero: neither is given.
func since(q url.Values, now time.Time) (time.Time, error) {
	if text := q.Get("sinceTime"); text != "" {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return time.Time{}, badRequest("sinceTime %q must be a time in RFC 3339", text)
		}

		return at, nil
	}

	seconds, err := number(q, "sinceSeconds", -1)
	if err != nil || seconds < 0 {
		return time.Time{}, err
	}

	return now.Add(-time.Duration(min(seconds, maxSince)) * time.Second), nil
}

// stream is the one that is wanted, empty for both.
func stream(q url.Values) (string, error) {
	switch q.Get("stream") {
	case "", v1.LogStreamAll:
		return "", nil
	case v1.LogStreamStdout:
		return "stdout", nil
	case v1.LogStreamStderr:
		return "stderr", nil
	}
	return "", badRequest("stream %q must be All, Stdout or Stderr", q.Get("stream"))
}

// logFile finds the container instance and its log.
func (s *Server) logFile(
	ctx context.Context,
	pod *v1.Pod,
	name string,
	previous bool,
) (id, path string, err error) {
	if !hasContainer(pod, name) {
		return "", "", badRequest("container %s is not valid for pod %s", name, pod.Name)
	}

	found, err := s.instances(ctx, pod, name)
	if err != nil {
		return "", "", err
	}

	if previous {
		last := lastID(pod, name)
		found = slices.DeleteFunc(found, func(c *cri.Container) bool { return c.Id != last })
	}

	switch {
	case len(found) == 0 && previous:
		return "", "", badRequest("previous terminated container %q in pod %q not found", name, pod.Name)
	case len(found) == 0:
		return "", "", badRequest("container %q in pod %q is waiting to start: %s",
			name, pod.Name, waiting(pod, name))
	}

	answer, err := s.cfg.Runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: found[0].Id})
	if err != nil {
		return "", "", fmt.Errorf("status of container %s: %w", found[0].Id, err)
	}
	if answer.Status.GetLogPath() == "" {
		return "", "", fmt.Errorf("container %s has no log file", found[0].Id)
	}

	return found[0].Id, answer.Status.LogPath, nil
}

func statusOf(pod *v1.Pod, name string) v1.ContainerStatus {
	for _, list := range [][]v1.ContainerStatus{
		pod.Status.ContainerStatuses,
		pod.Status.InitContainerStatuses,
		pod.Status.EphemeralContainerStatuses,
	} {
		for _, c := range list {
			if c.Name == name {
				return c
			}
		}
	}

	return v1.ContainerStatus{}
}

// lastID is the instance that the API shows as the one before the present state: of a container that is
// backing off the one that ended last.
func lastID(pod *v1.Pod, name string) string {
	ended := statusOf(pod, name).LastTerminationState.Terminated
	if ended == nil {
		return ""
	}
	_, id, _ := strings.Cut(ended.ContainerID, "://")
	return id
}

// waiting is why a container has not started, as its status tells.
func waiting(pod *v1.Pod, name string) string {
	w := statusOf(pod, name).State.Waiting
	switch {
	case w == nil:
		return "ContainerCreating"
	case w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff":
		return "image can't be pulled"
	}
	return w.Reason
}

func (s *Server) isRunning(ctx context.Context, id string) (bool, error) {
	answer, err := s.cfg.Runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
	if status.Code(err) == codes.NotFound {
		// a pod that is deleted takes its containers along
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("status of container %s: %w", id, err)
	}
	state := answer.Status.GetState()
	return state == cri.ContainerState_CONTAINER_RUNNING || state == cri.ContainerState_CONTAINER_CREATED, nil
}
