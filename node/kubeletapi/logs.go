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
		out.flush() // the caller sees at once that the stream is open
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

func logOptions(q url.Values, now time.Time) (o containerlog.Options, previous bool, err error) {
	o.Tail = -1
	number := func(name string) (int64, bool, error) {
		text := q.Get(name)
		if text == "" {
			return 0, false, nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return 0, false, badRequest("%s %q must be a number of 0 or more", name, text)
		}
		return n, true, nil
	}
	truth := func(name string) (bool, error) {
		text := q.Get(name)
		switch strings.ToLower(text) {
		case "", "0", "false":
			return false, nil
		case "1", "true":
			return true, nil
		}
		return false, badRequest("%s %q must be true or false", name, text)
	}
	if n, ok, err := number("tailLines"); err != nil {
		return o, false, err
	} else if ok {
		o.Tail = n
	}
	if n, ok, err := number("limitBytes"); err != nil {
		return o, false, err
	} else if ok {
		if n == 0 {
			return o, false, badRequest("limitBytes must be greater than 0")
		}
		o.LimitBytes = n
	}
	if n, ok, err := number("sinceSeconds"); err != nil {
		return o, false, err
	} else if ok {
		o.Since = now.Add(-time.Duration(min(n, maxSince)) * time.Second)
	}
	if text := q.Get("sinceTime"); text != "" {
		if o.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return o, false, badRequest("sinceTime %q must be a time in RFC 3339", text)
		}
	}
	if o.Follow, err = truth("follow"); err != nil {
		return o, false, err
	}
	if o.Timestamps, err = truth("timestamps"); err != nil {
		return o, false, err
	}
	switch q.Get("stream") {
	case "", v1.LogStreamAll:
	case v1.LogStreamStdout:
		o.Stream = "stdout"
	case v1.LogStreamStderr:
		o.Stream = "stderr"
	default:
		return o, false, badRequest("stream %q must be All, Stdout or Stderr", q.Get("stream"))
	}
	previous, err = truth("previous")
	return o, previous, err
}

// logFile finds the container instance and its log.
func (s *Server) logFile(ctx context.Context, pod *v1.Pod, name string, previous bool) (id, path string, err error) {
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
		return "", "", badRequest("container %q in pod %q is waiting to start: %s", name, pod.Name, waiting(pod, name))
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
	for _, list := range [][]v1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for _, c := range list {
			if c.Name == name {
				return c
			}
		}
	}
	return v1.ContainerStatus{}
}

// lastID is the instance that the API shows as the one before the present state: of a container that is backing off the one that ended last.
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
		return false, nil // a pod that is deleted takes its containers along
	}
	if err != nil {
		return false, fmt.Errorf("status of container %s: %w", id, err)
	}
	state := answer.Status.GetState()
	return state == cri.ContainerState_CONTAINER_RUNNING || state == cri.ContainerState_CONTAINER_CREATED, nil
}
