package streaming

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// tunnel serves port-forward for clients that speak SPDY inside a WebSocket: the messages' content is the
// byte stream of a SPDY connection, which is made to the server's own listener.
func (s *Server) tunnel(w http.ResponseWriter, r *http.Request) {
	conn, answer, err := s.dialSelf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}

	defer conn.Close()

	watch(r)
	upgrader := websocket.Upgrader{Subprotocols: []string{portForwardTunnel}}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		// The upgrader has answered.
		return
	}

	defer ws.Close()

	// The copies do not see the client's end while they wait for a pod that reads nothing.
	closeBoth := func() {
		conn.Close()
		ws.Close()
	}

	stop := context.AfterFunc(r.Context(), closeBoth)
	defer stop()

	// When one direction has ended, closing both connections ends the other one.
	ended := make(chan struct{}, 2)
	go func() {
		fromWebSocket(conn, ws)
		ended <- struct{}{}
	}()

	go func() {
		toWebSocket(ws, answer)
		ended <- struct{}{}
	}()

	<-ended
	closeBoth()
	<-ended
}

// fromWebSocket writes the content of all messages to w, until one of the two fails.
func fromWebSocket(w io.Writer, ws *websocket.Conn) {
	for {
		_, message, err := ws.NextReader()
		if err != nil {
			return
		}
		if _, err := io.Copy(w, message); err != nil {
			return
		}
	}
}

// tunnelBuffer is the size of the largest message that toWebSocket sends, in bytes.
const tunnelBuffer = 32 << 10

// toWebSocket sends what r gives as messages, until one of the two fails, and then that the connection is
// closed.
func toWebSocket(ws *websocket.Conn, r io.Reader) {
	buf := make([]byte, tunnelBuffer)
	for {
		n, err := r.Read(buf)
		if n > 0 && ws.WriteMessage(websocket.BinaryMessage, buf[:n]) != nil {
			break
		}
		if err != nil {
			break
		}
	}

	// The client may be gone.
	message := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	_ = ws.WriteControl(websocket.CloseMessage, message, time.Now().Add(closeTimeout))
}

// dialSelf opens the SPDY stream that r is about. What the stream sends is read from the reader, not from the
// connection.
func (s *Server) dialSelf(r *http.Request) (net.Conn, io.Reader, error) {
	addr := s.listener.Addr().String()
	conn, err := net.DialTimeout("tcp", addr, dialTimeout)
	if err != nil {
		return nil, nil, fmt.Errorf("tunnel: %w", err)
	}
	reader, err := upgradeToSPDY(r.Context(), conn, "http://"+addr+r.URL.Path)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("tunnel: %w", err), conn.Close())
	}
	return conn, reader, nil
}

// upgradeToSPDY makes a connection one of SPDY. The reader has what came after the header of the answer.
func upgradeToSPDY(ctx context.Context, conn net.Conn, url string) (io.Reader, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return nil, err
	}

	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "SPDY/3.1")
	request.Header.Set("X-Stream-Protocol-Version", "portforward.k8s.io")
	if err := request.Write(conn); err != nil {
		return nil, err
	}

	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, request)
	if err != nil {
		return nil, err
	}

	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}

	return reader, nil
}
