package streaming

import (
	"errors"
	"io"
	"net"
	"testing"
)

// tcpPair returns both ends of a connection on loopback.
func tcpPair(t *testing.T) (server, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	accepted := make(chan net.Conn)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
		}

		accepted <- conn
	}()

	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}

	server = (<-accepted).(*net.TCPConn)
	client = conn.(*net.TCPConn)
	t.Cleanup(func() {
		server.Close()
		client.Close()
	})

	return server, client
}

// resettable is a stream as SPDY's are.
type resettable struct {
	net.Conn
	reset chan struct{}
}

func (r *resettable) Reset() error {
	close(r.reset)
	return r.Conn.Close()
}

func TestAnswerComesAfterTheClientHasSentAll(t *testing.T) {
	pod, conn := tcpPair(t)
	stream, client := tcpPair(t)
	joined := make(chan error, 1)
	go func() { joined <- copyBoth(conn, stream) }()

	io.WriteString(client, "question")
	client.CloseWrite()
	if got, err := io.ReadAll(pod); err != nil || string(got) != "question" {
		t.Errorf("the pod reads %q, %v", got, err)
	}

	io.WriteString(pod, "answer")
	pod.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
		t.Errorf("the client reads %q, %v", got, err)
	}
	if err := <-joined; err != nil {
		t.Error(err)
	}
}

// Streams of SPDY share a connection, which one that nobody reads would stop.
func TestStreamOfAPodThatReadsNoMoreIsReset(t *testing.T) {
	pod, conn := tcpPair(t)
	end, client := net.Pipe()
	stream := &resettable{Conn: end, reset: make(chan struct{})}
	joined := make(chan error, 1)
	go func() { joined <- copyBoth(conn, stream) }()

	pod.SetLinger(0)
	pod.Close()
	for {
		if _, err := client.Write(make([]byte, 1024)); err != nil {
			break
		}
	}

	<-stream.reset
	if err := <-joined; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("error %v", err)
	}
}
