package streaming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// WebSocket subprotocols that k8s.io/cri-streaming does not know and newer clients ask for. Older ones, and
// SPDY, are left to it.
const (
	remoteCommandV5   = "v5.channel.k8s.io"
	portForwardTunnel = "SPDY/3.1+portforward.k8s.io"
)

// ServeHTTP serves one stream.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	offered := websocket.Subprotocols(r)
	upgrade := websocket.IsWebSocketUpgrade(r)
	kind := path.Base(path.Dir(r.URL.Path))
	if upgrade && slices.Contains(offered, portForwardTunnel) && kind == "portforward" {
		// The connection inside the tunnel comes with the same token.
		s.tunnel(w, r)
		return
	}

	request := s.tokens.take(path.Base(r.URL.Path))
	if request != nil {
		watch(r)
	}

	forward, isForward := request.(*runtimeapi.PortForwardRequest)
	switch {
	case isForward:
		s.servePortForward(w, r, forward)
	case upgrade && slices.Contains(offered, remoteCommandV5) && request != nil:
		s.invalidate(r.URL.String())
		s.remoteCommand(w, r, request)
	default:
		s.stream.ServeHTTP(w, r)
	}
}

// Channels of the v5 subprotocol: the first byte of each binary message.
const (
	channelStdin  = 0
	channelStdout = 1
	channelStderr = 2
	channelStatus = 3
	channelResize = 4

	// channelClose says in its second byte which channel the sender closes.
	channelClose = 255
)

// maxResize bounds a message {"Width":w,"Height":h}, in bytes.
const maxResize = 1 << 10

// remoteCommand serves exec or attach over WebSocket, subprotocol v5.
func (s *Server) remoteCommand(w http.ResponseWriter, r *http.Request, request any) {
	upgrader := websocket.Upgrader{Subprotocols: []string{remoteCommandV5}}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		// The upgrader has answered.
		return
	}

	defer conn.Close()

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()

	c := &v5{conn: conn}
	input, stdin := io.Pipe()
	defer input.Close()

	resize := make(chan remotecommand.TerminalSize)
	streams := c.streams(request, input, resize)
	if streams.in == nil {
		// What the client sends all the same is dropped, as nobody would read it.
		input.Close()
	}

	go c.read(ctx, stdin, resize)

	switch req := request.(type) {
	case *runtimeapi.ExecRequest:
		err = s.runExec(ctx, req.ContainerId, req.Cmd, streams)
	case *runtimeapi.AttachRequest:
		err = s.runAttach(ctx, req.ContainerId, streams)
	}

	c.close(err)
}

// v5 is one connection.
type v5 struct {
	conn *websocket.Conn

	// mu is held while a message is written.
	mu sync.Mutex
}

// streams returns those streams that the client asked for.
func (c *v5) streams(
	request any, input io.Reader, resize <-chan remotecommand.TerminalSize,
) clientStreams {
	wanted, ok := request.(interface {
		GetStdin() bool
		GetStdout() bool
		GetStderr() bool
		GetTty() bool
	})
	if !ok {
		return clientStreams{}
	}

	streams := clientStreams{tty: wanted.GetTty(), resize: resize}
	if wanted.GetStdin() {
		streams.in = input
	}
	if wanted.GetStdout() {
		streams.out = &channel{c, channelStdout}
	}
	if wanted.GetStderr() {
		streams.errOut = &channel{c, channelStderr}
	}

	return streams
}

// read hands on what the client sends, until it is gone. Messages are of any size, so none is held in memory.
func (c *v5) read(ctx context.Context, stdin *io.PipeWriter, resize chan<- remotecommand.TerminalSize) {
	defer close(resize)
	defer stdin.Close()

	for {
		// What is left of the message before is dropped by this.
		_, message, err := c.conn.NextReader()
		if err != nil {
			return
		}

		var head [1]byte
		if _, err := io.ReadFull(message, head[:]); err != nil {
			continue
		}

		switch head[0] {
		case channelStdin:
			// It fails when the process reads no more, which is not a reason to stop reading.
			_, _ = io.Copy(stdin, message)
		case channelResize:
			var size remotecommand.TerminalSize
			if json.NewDecoder(io.LimitReader(message, maxResize)).Decode(&size) != nil {
				continue
			}

			select {
			case resize <- size:
			case <-ctx.Done():
				return
			}

		case channelClose:
			if _, err := io.ReadFull(message, head[:]); err == nil && head[0] == channelStdin {
				stdin.Close()
			}
		}
	}
}

// channel writes one of the client's streams.
type channel struct {
	*v5
	id byte
}

// Write sends p as a message.
func (c *channel) Write(p []byte) (int, error) {
	if err := c.send(c.id, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *v5) send(id byte, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, err := c.conn.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}

	_, headErr := w.Write([]byte{id})
	_, err = w.Write(p)
	return errors.Join(headErr, err, w.Close())
}

// closeTimeout bounds the time in which the closing message has to be sent.
const closeTimeout = time.Second

// close sends how the command or attach ended, and closes the connection.
func (c *v5) close(err error) {
	data, encodeErr := json.Marshal(statusOf(err))
	if encodeErr != nil || c.send(channelStatus, data) != nil {
		return
	}

	// The client may be gone since.
	message := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = c.conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(closeTimeout))
}

// status is a metav1.Status.
type status struct {
	Status  string         `json:"status"`
	Message string         `json:"message,omitempty"`
	Reason  string         `json:"reason,omitempty"`
	Details *statusDetails `json:"details,omitempty"`
	Code    int            `json:"code,omitempty"`
}

type statusDetails struct {
	Causes []statusCause `json:"causes"`
}

type statusCause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// statusOf returns the status that clients of the v5 subprotocol expect for an error. They take the exit code
// of a command from its causes.
func statusOf(err error) status {
	if err == nil {
		return status{Status: "Success"}
	}

	if exit, ok := errors.AsType[exitError](err); ok {
		cause := statusCause{
			Reason:  remotecommand.ExitCodeCauseType,
			Message: fmt.Sprint(exit.ExitStatus()),
		}

		return status{
			Status:  "Failure",
			Reason:  remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", err),
			Details: &statusDetails{Causes: []statusCause{cause}},
		}
	}

	return status{
		Status:  "Failure",
		Reason:  "InternalError",
		Message: fmt.Sprintf("Internal error occurred: %v", err),
		Code:    http.StatusInternalServerError,
	}
}
