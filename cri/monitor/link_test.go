package monitor

import (
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/testenv"
)

// refusing serves a socket as a monitor that has one container and refuses all requests but the first hello.
func refusing(t *testing.T, socket, id string) {
	t.Helper()
	l, err := wire.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}

	served := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-served
	})

	go func() {
		defer close(served)

		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()

		for {
			m, files, err := conn.Receive()
			if err != nil {
				return
			}

			files.Close()
			reply := wire.Message{Op: wire.OpReply, Seq: m.Seq}
			if m.Op == wire.OpHello {
				status := wire.Status{Container: wire.Container{ID: id}}
				conn.Send(wire.Message{Op: wire.OpContainer, Status: &status}, nil)
			} else {
				reply.Fail = &wire.Fail{Text: "no such program"}
			}

			conn.Send(reply, nil)
		}
	}()
}

func TestRequestsThatFailLeaveNothingBehind(t *testing.T) {
	socket := filepath.Join(testenv.ShortDir(t), "m.sock")
	refusing(t, socket, "a")
	c, err := Connect(t.Context(), Config{Socket: socket, StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	for range 3 {
		if _, err := c.Exec(t.Context(), ExecConfig{
			ID: "a",
		}); err == nil || err.Error() != "no such program" {
			t.Errorf("exec: %v, want what the monitor said", err)
		}

		if _, err := c.Create(t.Context(), Container{ID: "b"}); err == nil {
			t.Error("a create that was refused succeeded")
		}
	}

	l, err := c.keeper.connected(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	l.mu.Lock()
	defer l.mu.Unlock()

	if len(l.execs)+len(l.pending) > 0 {
		t.Errorf("%d execs and %d requests are kept", len(l.execs), len(l.pending))
	}
}

func TestExitsAreQueuedWithoutAReader(t *testing.T) {
	q := newQueue()
	for code := range 1000 {
		q.put(Exit{Code: code})
	}

	for code := range 1000 {
		if e := <-q.out; e.Code != code {
			t.Fatalf("exit %d came as number %d", e.Code, code)
		}
	}

	q.put(Exit{})
	q.close()
	q.close()
	for range q.out {
		// The one that nobody took may still come.
	}
}
