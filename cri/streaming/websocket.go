package streaming

import (
	"context"
	"encoding/json"
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
	utilexec "k8s.io/utils/exec"
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
		// which comes back with the same token
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
		s.useUp(r.URL.String())
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
	channelClose  = 255 // its second byte is the channel that the sender closes
)

const maxResize = 1 << 10 // bytes of {"Width":w,"Height":h}

// remoteCommand serves exec or attach over WebSocket, subprotocol v5.
func (s *Server) remoteCommand(w http.ResponseWriter, r *http.Request, request any) {
	upgrader := websocket.Upgrader{Subprotocols: []string{remoteCommandV5}}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		// answered already
		return
	}

	defer conn.Close()

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()

	c := &v5{conn: conn}
	stdinReader, stdin := io.Pipe()
	defer stdinReader.Close()

	if !wantsStdin(request) {
		// what comes nevertheless is dropped: nobody would read it
		stdinReader.Close()
	}

	resize := make(chan remotecommand.TerminalSize)
	go c.read(ctx, stdin, resize)
	a := (*adapter)(s)
	switch req := request.(type) {
	case *runtimeapi.ExecRequest:
		in, out, errOut := c.streams(req.Stdin, req.Stdout, req.Stderr, stdinReader)
		err = a.Exec(ctx, req.ContainerId, req.Cmd, in, out, errOut, req.Tty, resize)
	case *runtimeapi.AttachRequest:
		in, out, errOut := c.streams(req.Stdin, req.Stdout, req.Stderr, stdinReader)
		err = a.Attach(ctx, req.ContainerId, in, out, errOut, req.Tty, resize)
	}

	c.status(err)
}

func wantsStdin(request any) bool {
	r, ok := request.(interface{ GetStdin() bool })
	return ok && r.GetStdin()
}

// v5 is one connection.
type v5 struct {
	conn *websocket.Conn
	mu   sync.Mutex // one message at a time
}

// streams are what the process gets; nil for those that the client did not ask for.
func (c *v5) streams(stdin, stdout, stderr bool, pipe io.Reader) (in io.Reader, out, errOut io.WriteCloser) {
	if stdin {
		in = pipe
	}
	if stdout {
		out = &channel{c, channelStdout}
	}
	if stderr {
		errOut = &channel{c, channelStderr}
	}
	return in, out, errOut
}

// read hands on what the client sends, until it is gone. Messages are of any size, so none is held in memory.
func (c *v5) read(ctx context.Context, stdin *io.PipeWriter, resize chan<- remotecommand.TerminalSize) {
	defer close(resize)
	defer stdin.Close()

	for {
		// what is left of the one before is dropped
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
			// fails when the process reads no more: no reason to stop reading
			io.Copy(stdin, message)
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

func (c *channel) Write(p []byte) (int, error) {
	if err := c.send(c.id, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *channel) Close() error { return nil }

func (c *v5) send(id byte, p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w, err := c.conn.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return err
	}
	w.Write([]byte{id})
	w.Write(p)
	return w.Close()
}

// status tells how it ended, as metav1.Status, and says goodbye.
func (c *v5) status(err error) {
	type cause struct {
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}

	type details struct {
		Causes []cause `json:"causes"`
	}
	status := struct {
		Status  string   `json:"status"`
		Message string   `json:"message,omitempty"`
		Reason  string   `json:"reason,omitempty"`
		Details *details `json:"details,omitempty"`
		Code    int      `json:"code,omitempty"`
	}{Status: "Success"}
	if err != nil {
		status.Status = "Failure"
		if exit, ok := err.(utilexec.ExitError); ok {
			status.Reason, status.Message = remotecommand.NonZeroExitCodeReason, fmt.Sprintf("command terminated with non-zero exit code: %v", err)
			status.Details = &details{
				[]cause{{remotecommand.ExitCodeCauseType, fmt.Sprint(exit.ExitStatus())}},
			}
		} else {
			status.Reason, status.Code, status.Message = "InternalError", http.StatusInternalServerError, fmt.Sprintf("Internal error occurred: %v", err)
		}
	}

	data, err := json.Marshal(status)
	if err != nil {
		return
	}

	c.send(channelStatus, data)
	c.conn.WriteControl(
		websocket.CloseMessage,
		websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""),
		time.Now().Add(time.Second),
	)
}
