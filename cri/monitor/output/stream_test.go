package output_test

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logfile"
	"github.com/trivet-node/trivet/cri/logjournal"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/cri/monitor/output"
	"github.com/trivet-node/trivet/internal/testenv"
)

// rig is a stream that flows from a FIFO into a log.
type rig struct {
	stream *output.Stream
	writer *os.File // the container's end
	log    string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "out")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &rig{log: filepath.Join(dir, "0.log")}
	log, err := logfile.Open(r.log)
	if err != nil {
		t.Fatal(err)
	}
	journal, err := logjournal.Open(filepath.Join(dir, "journal"), 1)
	if err != nil {
		t.Fatal(err)
	}
	journal.Recover(nil)

	r.stream, err = output.Open(fifo, "a/out", "stdout", log, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	if r.writer, err = os.OpenFile(fifo, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	go r.stream.Pump(journal)
	t.Cleanup(func() {
		r.writer.Close()
		<-r.stream.Done()
		r.stream.Close()
		log.Close()
		journal.Close()
	})
	return r
}

func (r *rig) write(t *testing.T, text string) {
	t.Helper()
	if _, err := r.writer.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// attach attaches a client and returns its end.
func (r *rig) attach(t *testing.T) (*os.File, error) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	read := os.NewFile(uintptr(p[0]), "client")
	t.Cleanup(func() { read.Close() })
	return read, r.stream.Attach(p[1])
}

func TestOutputReachesTheLogAndEachClient(t *testing.T) {
	r := newRig(t)
	var clients []*os.File
	for range 2 {
		client, err := r.attach(t)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	r.write(t, "hello\n")
	r.writer.Close()

	for _, client := range clients {
		if got, err := io.ReadAll(client); err != nil || string(got) != "hello\n" {
			t.Errorf("a client got %q, %v", got, err)
		}
	}
	<-r.stream.Done()
	if log, err := os.ReadFile(r.log); err != nil || !strings.HasSuffix(string(log), " stdout F hello\n") {
		t.Errorf("log %q, %v", log, err)
	}
}

// A client that reads slowly gets all of the output, and holds the container back meanwhile.
func TestASlowClientGetsEverything(t *testing.T) {
	r := newRig(t)
	client, err := r.attach(t)
	if err != nil {
		t.Fatal(err)
	}
	const n = 1 << 20
	go func() {
		w := bufio.NewWriter(r.writer)
		for range n / 64 {
			w.WriteString(strings.Repeat("x", 63) + "\n")
		}
		w.Flush()
		r.writer.Close()
	}()

	total := 0
	for chunk := make([]byte, 1000); ; {
		m, err := client.Read(chunk)
		total += m
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if total != n {
		t.Errorf("the client got %d bytes of %d", total, n)
	}
}

// A quiet container writes nothing that would show that its clients are gone.
func TestAClientThatIsGoneIsForgotten(t *testing.T) {
	r := newRig(t)
	for range 64 {
		client, err := r.attach(t)
		if err != nil {
			t.Fatal(err)
		}
		client.Close()
	}

	// All places were taken.
	var client *os.File
	monitortest.Eventually(t, func() (err error) {
		client, err = r.attach(t)
		return err
	})
	r.write(t, "a\n")
	r.writer.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "a\n" {
		t.Errorf("the client got %q, %v", got, err)
	}
}

func TestTheNumberOfClientsIsBounded(t *testing.T) {
	r := newRig(t)
	refused := 0
	for range 70 {
		if _, err := r.attach(t); err != nil {
			refused++
		}
	}
	if refused != 6 {
		t.Errorf("%d of 70 clients were refused, want 6", refused)
	}
}

func TestAStreamThatIsOverEndsItsClientsAtOnce(t *testing.T) {
	r := newRig(t)
	r.writer.Close()
	<-r.stream.Done()
	client, err := r.attach(t)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(client); err != nil || len(got) > 0 {
		t.Errorf("the client got %q, %v", got, err)
	}
}

func TestWhatAContainerDoesNotHaveCanBeAskedFor(t *testing.T) {
	var none *output.Stream
	if fd := none.Share(); fd != -1 {
		t.Errorf("a copy of no stream is %d", fd)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	fd, err := unix.FcntlInt(write.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	write.Close()
	if err := none.Attach(fd); err != nil {
		t.Error(err)
	}
	if n, err := read.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("attached to no stream: read %d bytes, %v", n, err)
	}
}

func TestATerminalsOutputEndsWhenNobodyHasItOpen(t *testing.T) {
	master, slave := terminal(t)
	var fifo [2]int
	if err := unix.Pipe2(fifo[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	read := os.NewFile(uintptr(fifo[0]), "fifo")
	defer read.Close()
	go output.PumpTerminal(master, fifo[1])

	if _, err := slave.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 7)
	if _, err := io.ReadFull(read, got); err != nil || string(got) != "hello\r\n" {
		t.Errorf("got %q, %v", got, err)
	}
	slave.Close()
	if rest, err := io.ReadAll(read); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

// terminal opens a new terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		testenv.Skip(t, "needs terminals: %v", err)
	}
	master = os.NewFile(uintptr(fd), "terminal")
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	const flags = unix.O_RDWR | unix.O_NOCTTY | unix.O_CLOEXEC
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, flags)
	if errno != 0 {
		t.Fatal(errno)
	}
	slave = os.NewFile(n, "slave")
	t.Cleanup(func() { slave.Close() })
	return master, slave
}
