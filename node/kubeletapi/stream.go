package kubeletapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

// exec connects the caller to a new process in a running container.
func (s *Server) exec(w http.ResponseWriter, r *http.Request) error {
	command := r.URL.Query()[v1.ExecCommandParam]
	if len(command) == 0 {
		return badRequest("you must specify at least one command")
	}
	return s.connect(w, r, func(ctx context.Context, id string, want runtime.Streams) (string, error) {
		url, err := s.cfg.Runtime.Exec(ctx, id, command, want)
		if err != nil {
			return "", fmt.Errorf("prepare exec in container %s: %w", id, err)
		}
		return url, nil
	})
}

// attach connects the caller to the process that a container runs.
func (s *Server) attach(w http.ResponseWriter, r *http.Request) error {
	return s.connect(w, r, func(ctx context.Context, id string, want runtime.Streams) (string, error) {
		url, err := s.cfg.Runtime.Attach(ctx, id, want)
		if err != nil {
			return "", fmt.Errorf("prepare attach to container %s: %w", id, err)
		}
		return url, nil
	})
}

// connect passes the request through to the URL that prepare gets from the runtime for the container that the
// path names.
func (s *Server) connect(
	w http.ResponseWriter, r *http.Request,
	prepare func(ctx context.Context, id string, want runtime.Streams) (url string, err error),
) error {
	want, err := streamsOf(r)
	if err != nil {
		return err
	}

	id, err := s.find.target(r)
	if err != nil {
		return err
	}

	url, err := prepare(r.Context(), id, want)
	if err != nil {
		return err
	}

	return s.passThrough(w, r, url)
}

// streamsOf returns the streams that the caller asks for, by the query parameters of the remotecommand
// protocol.
func streamsOf(r *http.Request) (runtime.Streams, error) {
	on := func(name string) bool {
		value := r.URL.Query().Get(name)
		return value == "1" || value == "true"
	}

	s := runtime.Streams{
		Stdin:  on(v1.ExecStdinParam),
		Stdout: on(v1.ExecStdoutParam),
		Stderr: on(v1.ExecStderrParam),
		TTY:    on(v1.ExecTTYParam),
	}
	if s.TTY {
		// A terminal has one output.
		s.Stderr = false
	}

	if !s.Stdin && !s.Stdout && !s.Stderr {
		return s, badRequest("you must specify at least 1 of stdin, stdout, stderr")
	}

	return s, nil
}

// portForward connects the caller to ports of a pod.
func (s *Server) portForward(w http.ResponseWriter, r *http.Request) error {
	pod, err := s.find.pod(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid"))
	if err != nil {
		return err
	}

	ports, err := portsOf(r)
	if err != nil {
		return err
	}

	id, err := s.find.readySandbox(r.Context(), pod)
	if err != nil {
		return err
	}

	url, err := s.cfg.Runtime.PortForward(r.Context(), id, ports)
	if err != nil {
		return fmt.Errorf("prepare port-forward to pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	return s.passThrough(w, r, url)
}

// portsOf returns the ports that the query names, as old WebSocket clients do. SPDY names them in its
// streams.
func portsOf(r *http.Request) ([]int32, error) {
	var ports []int32
	for _, list := range r.URL.Query()["port"] {
		for text := range strings.SplitSeq(list, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				return nil, badRequest("port %q must be between 1 and 65535", text)
			}
			ports = append(ports, int32(port))
		}
	}
	return ports, nil
}

// runTime is how long a command of /run may take.
const runTime = time.Minute

// run executes a command and answers with what it wrote.
func (s *Server) run(w http.ResponseWriter, r *http.Request) error {
	id, err := s.find.target(r)
	if err != nil {
		return err
	}

	command := strings.Fields(r.URL.Query().Get("cmd"))
	if len(command) == 0 {
		return badRequest("cmd is empty")
	}

	output, code, err := s.cfg.Runtime.ExecSync(r.Context(), id, command, runTime)
	if err != nil {
		return fmt.Errorf("run in container %s: %w", id, err)
	}

	if code != 0 {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = fmt.Fprintf(w, "command terminated with exit code %d\n", code)
	}

	_, _ = w.Write(output)
	return nil
}
