package kubeletapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// streams are the streams that the caller asks for (query parameters of the remotecommand protocol).
type streams struct{ stdin, stdout, stderr, tty bool }

func streamsOf(r *http.Request) (streams, error) {
	on := func(long string) bool {
		return r.URL.Query().Get(long) == "1" ||
			r.URL.Query().Get(long) == "true"
	}

	s := streams{on(v1.ExecStdinParam), on(v1.ExecStdoutParam), on(v1.ExecStderrParam), on(v1.ExecTTYParam)}
	if s.tty {
		// a terminal has one output
		s.stderr = false
	}

	if !s.stdin && !s.stdout && !s.stderr {
		return s, badRequest("you must specify at least 1 of stdin, stdout, stderr")
	}

	return s, nil
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	target, err := s.execURL(r)
	if err != nil {
		fail(w, err)
		return
	}
	s.passThrough(w, r, target)
}

func (s *Server) execURL(r *http.Request) (string, error) {
	want, err := streamsOf(r)
	if err != nil {
		return "", err
	}

	command := r.URL.Query()[v1.ExecCommandParam]
	if len(command) == 0 {
		return "", badRequest("you must specify at least one command")
	}

	id, err := s.target(r)
	if err != nil {
		return "", err
	}

	answer, err := s.cfg.Runtime.Exec(r.Context(), &cri.ExecRequest{
		ContainerId: id,
		Cmd:         command,
		Stdin:       want.stdin,
		Stdout:      want.stdout,
		Stderr:      want.stderr,
		Tty:         want.tty,
	})
	if err != nil {
		return "", fmt.Errorf("prepare exec in container %s: %w", id, err)
	}

	return answer.Url, nil
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	target, err := s.attachURL(r)
	if err != nil {
		fail(w, err)
		return
	}
	s.passThrough(w, r, target)
}

func (s *Server) attachURL(r *http.Request) (string, error) {
	want, err := streamsOf(r)
	if err != nil {
		return "", err
	}

	id, err := s.target(r)
	if err != nil {
		return "", err
	}

	answer, err := s.cfg.Runtime.Attach(r.Context(), &cri.AttachRequest{
		ContainerId: id,
		Stdin:       want.stdin,
		Stdout:      want.stdout,
		Stderr:      want.stderr,
		Tty:         want.tty,
	})
	if err != nil {
		return "", fmt.Errorf("prepare attach to container %s: %w", id, err)
	}

	return answer.Url, nil
}

// target is the running container that the path names.
func (s *Server) target(r *http.Request) (string, error) {
	pod, err := s.pod(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid"))
	if err != nil {
		return "", err
	}
	return s.runningContainer(r.Context(), pod, r.PathValue("container"))
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	target, err := s.portForwardURL(r)
	if err != nil {
		fail(w, err)
		return
	}
	s.passThrough(w, r, target)
}

// portForwardURL takes ports from the query for WebSockets of old; SPDY names them in its streams.
func (s *Server) portForwardURL(r *http.Request) (string, error) {
	pod, err := s.pod(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid"))
	if err != nil {
		return "", err
	}

	var ports []int32
	for _, list := range r.URL.Query()["port"] {
		for text := range strings.SplitSeq(list, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				return "", badRequest("port %q must be between 1 and 65535", text)
			}

			ports = append(ports, int32(port))
		}
	}

	id, err := s.sandbox(r.Context(), pod)
	if err != nil {
		return "", err
	}

	answer, err := s.cfg.Runtime.PortForward(
		r.Context(),
		&cri.PortForwardRequest{PodSandboxId: id, Port: ports},
	)
	if err != nil {
		return "", fmt.Errorf("prepare port-forward to pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	return answer.Url, nil
}

// run executes a command and answers with what it wrote.
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	id, err := s.target(r)
	if err != nil {
		fail(w, err)
		return
	}

	command := strings.Fields(r.URL.Query().Get("cmd"))
	if len(command) == 0 {
		fail(w, badRequest("cmd is empty"))
		return
	}

	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()

	answer, err := s.cfg.Runtime.ExecSync(
		ctx,
		&cri.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: 60},
	)
	if err != nil {
		fail(w, fmt.Errorf("run in container %s: %w", id, err))
		return
	}

	if answer.ExitCode != 0 {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = fmt.Fprintf(w, "command terminated with exit code %d\n", answer.ExitCode)
	}

	_, _ = io.WriteString(w, string(answer.Stdout)+string(answer.Stderr))
}

// partingTime is how long a caller has to close its connection when the runtime has ended a stream.
const partingTime = 2 * time.Second

// ends makes the two connections of a stream end together. The protocols over them have ends of input and
// output of their own, so that one which is closed by either side is over: what it opened must not wait for a
// command that goes on, or for a caller that lingers.
type ends struct {
	http.ResponseWriter
	caller net.Conn // once it is handed over
}

// Unwrap lets http.ResponseController find what the response can do beside Hijack.
func (e *ends) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// Hijack hands the connection over.
func (e *ends) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(e.ResponseWriter).Hijack()
	e.caller = conn
	return conn, buffer, err
}

// end takes from the connection to the runtime what lets the proxy close it by halves.
func (e *ends) end(r *http.Response) error {
	if conn, ok := r.Body.(io.ReadWriteCloser); ok && r.StatusCode == http.StatusSwitchingProtocols {
		r.Body = &runtimeEnd{conn, e}
	}
	return nil
}

// runtimeEnd is the connection to the runtime.
type runtimeEnd struct {
	io.ReadWriteCloser
	ends *ends
}

// Read leaves the caller some time to read the rest when the runtime has ended the stream: a connection that
// is closed with input unread is reset, and what was sent last is lost.
func (c *runtimeEnd) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	if err != nil {
		_ = c.ends.caller.SetReadDeadline(time.Now().Add(partingTime))
	}
	return n, err
}
