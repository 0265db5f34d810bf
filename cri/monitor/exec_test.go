package monitor

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

func TestExecThatFailsLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	conn, err := wire.Dial(path)
	if err != nil {
		t.Fatal(err)
	}

	sock, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}

	l := &link{
		conn:    conn,
		pending: map[uint64]chan answer{},
		execs:   map[uint64]*Exec{},
		lost:    make(chan struct{}),
	}

	c := &Client{link: l, up: make(chan struct{}), held: map[string]*held{"c": {}}}
	served := make(chan struct{})
	go func() { defer close(served); c.serve(l) }()
	daemon := wire.NewConn(sock)
	go func() {
		for {
			m, files, err := daemon.Receive()
			if err != nil {
				return
			}

			files.Close()
			daemon.Send(
				wire.Message{Op: wire.OpReply, Seq: m.Seq, Fail: &wire.Fail{Text: "no such program"}},
				nil,
			)
		}
	}()

	for range 3 {
		if _, err := c.Exec(t.Context(), ExecConfig{ID: "c"}); err == nil {
			t.Error("an exec that failed is there")
		}
	}

	if len(l.execs) > 0 {
		t.Errorf("%d execs are kept", len(l.execs))
	}

	daemon.Close()
	<-served
}
