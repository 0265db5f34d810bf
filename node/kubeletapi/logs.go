package kubeletapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/podlog/containerlog"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/runtime"
)

// logs answers with the log of a container. Its query parameters are those of v1.PodLogOptions.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	options, previous, err := logOptions(r.URL.Query(), time.Now())
	if err != nil {
		return err
	}

	pod, err := s.find.pod(r.PathValue("namespace"), r.PathValue("pod"), "")
	if err != nil {
		return err
	}

	id, path, err := s.find.logFile(r.Context(), pod, r.PathValue("container"), previous)
	if err != nil {
		return err
	}

	options.Running = func(ctx context.Context) (bool, error) { return s.find.isRunning(ctx, id) }

	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	out := flushing{w, http.NewResponseController(w)}
	if options.Follow {
		// The caller sees at once that the stream is open.
		out.flush()
	}

	if err := containerlog.Read(r.Context(), path, options, out); err != nil {
		_, _ = fmt.Fprintf(w, "unable to retrieve container logs for %s: %v", id, err)
	}

	return nil
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

// logFile finds the instance whose log is wanted, and the log.
func (l lookup) logFile(
	ctx context.Context, pod *v1.Pod, name string, previous bool,
) (id, path string, err error) {
	if podspec.Find(pod, name) == nil {
		return "", "", badRequest("container %s is not valid for pod %s", name, pod.Name)
	}

	found, err := l.runtime.Containers(ctx, runtime.Selection{UID: string(pod.UID), Container: name})
	if err != nil {
		return "", "", fmt.Errorf("list containers of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	// Which instance was the previous one is what the pod's status shows.
	if previous {
		last := lastID(pod, name)
		found = slices.DeleteFunc(found, func(c runtime.Container) bool { return c.ID != last })
	}

	newest := runtime.NewestContainer(found)
	switch {
	case newest == nil && previous:
		// The log of an instance that was removed to restart all containers may be there still.
		if path, kept := l.keptLog(pod, name); kept {
			return lastID(pod, name), path, nil
		}

		return "", "", badRequest("previous terminated container %q in pod %q not found", name, pod.Name)

	case newest == nil:
		return "", "", badRequest("container %q in pod %q is waiting to start: %s",
			name, pod.Name, waiting(pod, name))
	}

	status, err := l.runtime.ContainerStatus(ctx, newest.ID)
	if err != nil {
		return "", "", fmt.Errorf("status of container %s: %w", newest.ID, err)
	}
	if status.LogPath == "" {
		return "", "", fmt.Errorf("container %s has no log file", newest.ID)
	}

	return newest.ID, status.LogPath, nil
}

// keptLog returns where the log of the instance before the present one is, if it outlived the instance.
func (l lookup) keptLog(pod *v1.Pod, name string) (path string, kept bool) {
	s := statusOf(pod, name)
	attempt := s.RestartCount
	if s.State.Waiting == nil {
		attempt--
	}
	if lastID(pod, name) == "" || attempt < 0 {
		return "", false
	}

	path = filepath.Join(podlog.Dir(l.logs, pod), podlog.File(name, uint32(attempt)))
	_, err := os.Stat(path)
	return path, err == nil
}

// isRunning reports whether an instance may still write to its log.
func (l lookup) isRunning(ctx context.Context, id string) (bool, error) {
	status, err := l.runtime.ContainerStatus(ctx, id)
	if errors.Is(err, runtime.ErrNotFound) {
		// The containers of a deleted pod are removed with it.
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("status of container %s: %w", id, err)
	}
	return status.State == plan.Running || status.State == plan.Created, nil
}

// statusOf returns the status of a container, its zero value if there is none yet.
func statusOf(pod *v1.Pod, name string) v1.ContainerStatus {
	all := slices.Concat(
		pod.Status.ContainerStatuses,
		pod.Status.InitContainerStatuses,
		pod.Status.EphemeralContainerStatuses,
	)
	i := slices.IndexFunc(all, func(c v1.ContainerStatus) bool { return c.Name == name })
	if i < 0 {
		return v1.ContainerStatus{}
	}
	return all[i]
}

// lastID returns the ID of the instance that the API shows as the one before the present state: of a
// container that is backing off the one that ended last.
func lastID(pod *v1.Pod, name string) string {
	ended := statusOf(pod, name).LastTerminationState.Terminated
	if ended == nil {
		return ""
	}
	_, id, _ := strings.Cut(ended.ContainerID, "://")
	return id
}

// waiting returns why a container has not started, by its status.
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

// logOptions reads the query.
func logOptions(values url.Values, now time.Time) (o containerlog.Options, previous bool, err error) {
	q := query{values: values}
	o = containerlog.Options{
		Tail:       q.number("tailLines", -1),
		LimitBytes: q.number("limitBytes", 0),
		Since:      q.since(now),
		Follow:     q.isTrue("follow"),
		Timestamps: q.isTrue("timestamps"),
		Stream:     q.stream(),
	}
	if o.LimitBytes == 0 && values.Get("limitBytes") != "" {
		q.refuse("limitBytes must be greater than 0")
	}

	return o, q.isTrue("previous"), q.err
}

// query reads parameters. The first one that is not valid is its error.
type query struct {
	values url.Values
	err    error
}

func (q *query) refuse(format string, args ...any) {
	if q.err == nil {
		q.err = badRequest(format, args...)
	}
}

// number returns a parameter that is 0 or more, or otherwise if it is not given.
func (q *query) number(name string, otherwise int64) int64 {
	text := q.values.Get(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		q.refuse("%s %q must be a number of 0 or more", name, text)
	}
	return n
}

// isTrue returns a parameter that is true or false.
func (q *query) isTrue(name string) bool {
	text := q.values.Get(name)
	switch strings.ToLower(text) {
	case "", "0", "false":
		return false
	case "1", "true":
		return true
	}
	q.refuse("%s %q must be true or false", name, text)
	return false
}

// maxSince is the longest time in seconds that a log can be asked for: more does not fit a time.Duration, and
// no log is older.
const maxSince = 100 * 365 * 24 * 3600

// since returns sinceTime or, without that, sinceSeconds before now; zero if neither is given.
func (q *query) since(now time.Time) time.Time {
	if text := q.values.Get("sinceTime"); text != "" {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			q.refuse("sinceTime %q must be a time in RFC 3339", text)
		}

		return at
	}

	seconds := q.number("sinceSeconds", -1)
	if seconds < 0 {
		return time.Time{}
	}

	return now.Add(-time.Duration(min(seconds, maxSince)) * time.Second)
}

// stream returns the one that is wanted, empty for both.
func (q *query) stream() string {
	switch text := q.values.Get("stream"); text {
	case "", v1.LogStreamAll:
		return ""
	case v1.LogStreamStdout:
		return "stdout"
	case v1.LogStreamStderr:
		return "stderr"
	default:
		q.refuse("stream %q must be All, Stdout or Stderr", text)
		return ""
	}
}
