package wire

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
)

// pair is two ends of a connection.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	path := filepath.Join(testenv.ShortDir(t), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	a, err = Dial(path)
	if err != nil {
		t.Fatal(err)
	}

	sock, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}

	b = newConn(sock)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestMessagesAndDescriptorsArrive(t *testing.T) {
	a, b := pair(t)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(Message{Op: OpAttach, Seq: 7, ID: "x"}, Files{FdOut: p[1], FdErr: -1}); err != nil {
		t.Fatal(err)
	}

	unix.Close(p[1])
	m, files, err := b.Receive()
	if err != nil || m.Op != OpAttach || m.Seq != 7 || m.ID != "x" || len(files) != 1 {
		t.Fatalf("got %+v %v %v", m, files, err)
	}
	if _, err := unix.Write(files[FdOut], []byte("hi")); err != nil {
		t.Error(err)
	}

	files.Close()
	buf := make([]byte, 8)
	if n, err := unix.Read(p[0], buf); string(buf[:n]) != "hi" {
		t.Errorf("read %q, %v", buf[:n], err)
	}

	unix.Close(p[0])
	if err := a.Send(Message{Op: OpForget, ID: strings.Repeat("x", maxMessage)}, nil); err == nil {
		t.Error("a message that is too large was sent")
	}

	a.Close()
	if _, _, err := b.Receive(); err == nil {
		t.Error("no error at the end of the connection")
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	for _, want := range []error{ErrNotFound, ErrExists, ErrExited} {
		got := FailOf(errors.Join(errors.New("context"), want)).Err()
		if !errors.Is(got, want) || !strings.Contains(got.Error(), "context") {
			t.Errorf("%v became %v", want, got)
		}
	}
	if FailOf(nil).Err() != nil {
		t.Error("no error became one")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"Op":"create","Seq":1,"Container":{"ID":"a"},"Fds":["pid"]}`), 1)
	f.Add([]byte(`{"Op":"reply","Fail":{"Kind":"exists","Text":"x"}}`), 0)
	f.Fuzz(func(t *testing.T, data []byte, descriptors int) {
		m, err := decode(data, descriptors)
		if err == nil && (m.Op == "" || len(m.Fds) != descriptors) {
			t.Errorf("accepted %q as %+v", data, m)
		}
	})
}
