package console_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/console"
	"github.com/trivet-node/trivet/internal/testenv"
)

func listen(t *testing.T) *console.Socket {
	t.Helper()
	s, err := console.Listen(filepath.Join(testenv.ShortDir(t), "tty"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// send sends descriptors as an OCI runtime does.
func send(t *testing.T, s *console.Socket, fds ...int) {
	t.Helper()
	conn, err := net.Dial("unix", s.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _, err = conn.(*net.UnixConn).WriteMsgUnix([]byte("/dev/ptmx"), unix.UnixRights(fds...), nil)
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheMasterOfATerminalIsReceived(t *testing.T) {
	s := listen(t)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testenv.Skip(t, "needs terminals: %v", err)
	}
	defer master.Close()
	send(t, s, int(master.Fd()))

	got, err := s.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	size := &unix.Winsize{Row: 25, Col: 81}
	if err := unix.IoctlSetWinsize(int(got.Fd()), unix.TIOCSWINSZ, size); err != nil {
		t.Fatal(err)
	}
	if now, err := unix.IoctlGetWinsize(int(master.Fd()), unix.TIOCGWINSZ); err != nil || now.Col != 81 {
		t.Errorf("the terminal that was sent has the size %+v, %v", now, err)
	}
}

func TestAMessageWithAnotherNumberOfDescriptorsIsRefused(t *testing.T) {
	s := listen(t)
	send(t, s, 0, 1)
	if f, err := s.Receive(t.Context()); err == nil {
		f.Close()
		t.Error("two descriptors were taken for a terminal")
	}
}

func TestReceiveEndsWithItsContext(t *testing.T) {
	s := listen(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("the runtime takes too long")
	cancel(late)
	if _, err := s.Receive(ctx); !errors.Is(err, late) {
		t.Errorf("error %v, want the cause of the context", err)
	}
}

func TestCloseRemovesTheSocketAndItsDirectory(t *testing.T) {
	s := listen(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(s.Path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory: %v", err)
	}
}

func TestAPathThatIsTooLongIsAnError(t *testing.T) {
	parent := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if s, err := console.Listen(parent); err == nil {
		s.Close()
		t.Error("a socket with a path of more than 107 bytes was made")
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
