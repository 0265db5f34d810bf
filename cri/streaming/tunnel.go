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
// byte stream of a SPDY connection, which is made to our own listener.
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
		// answered already
		return
	}

	defer ws.Close()
	// The copies do not see the client's end while they wait for a pod that takes nothing.
	defer context.AfterFunc(r.Context(), func() { conn.Close(); ws.Close() })()

	done := make(chan struct{}, 2)
	go func() {
		for {
			_, message, err := ws.NextReader()
			if err != nil {
				break
			}
			if _, err := io.Copy(conn, message); err != nil {
				break
			}
		}

		done <- struct{}{}
	}()

	go func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := answer.Read(buf)
			if n > 0 && ws.WriteMessage(websocket.BinaryMessage, buf[:n]) != nil {
				break
			}
			if err != nil {
				break
			}
		}

		ws.WriteControl(
			websocket.CloseMessage,
			websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""),
			time.Now().Add(time.Second),
		)

		done <- struct{}{}
	}()

	// one end is gone; closing both ends the other copy
	<-done
	conn.Close()
	ws.Close()
	<-done
}

// dialSelf opens the SPDY stream that r is about. What comes back after the answer's header is read from the
// reader.
func (s *Server) dialSelf(r *http.Request) (net.Conn, io.Reader, error) {
	conn, err := net.DialTimeout("tcp", s.listen.Addr().String(), dialTimeout)
	if err != nil {
		return nil, nil, fmt.Errorf("tunnel: %w", err)
	}

	out, err := http.NewRequestWithContext(
		r.Context(),
		http.MethodPost,
		"http://"+s.listen.Addr().String()+r.URL.Path,
		nil,
	)
	if err == nil {
		out.Header.Set("Connection", "Upgrade")
		out.Header.Set("Upgrade", "SPDY/3.1")
		out.Header.Set("X-Stream-Protocol-Version", "portforward.k8s.io")
		err = out.Write(conn)
	}

	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("tunnel: %w", err), conn.Close())
	}

	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, out)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("tunnel: %w", err), conn.Close())
	}

	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body.Close()
		return nil, nil, errors.Join(fmt.Errorf("tunnel: %s", resp.Status), conn.Close())
	}

	return conn, reader, nil
}
