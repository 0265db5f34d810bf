package daemon_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/daemon"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/internal/testenv"
)

// TestMain lets the test binary stand in for trivet-monitor: the daemon must be a process of its own, as it
// waits for all children.
func TestMain(m *testing.M) {
	dir := os.Getenv("DAEMON_TEST_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}

	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()

	err := daemon.Run(ctx, daemon.Config{
		Socket:   filepath.Join(dir, "m.sock"),
		StateDir: filepath.Join(dir, "state"),
		Log:      slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Ready:    func() { fmt.Println("ready") },
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// world is a directory with a monitor's state and an OCI runtime that needs no root.
type world struct {
	dir     string
	runtime ociruntime.Runtime
	runner  ociruntime.Runner
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := testenv.ShortDir(t)
	return &world{dir: dir, runtime: monitortest.FakeRuntime(t, dir)}
}

func (w *world) stateDir() string { return filepath.Join(w.dir, "state") }

// monitor is a monitor's process.
type monitor struct {
	cmd *exec.Cmd
	log string
}

// start starts a monitor and waits until it serves; what it says instead is an error.
func (w *world) start(t *testing.T) (*monitor, error) {
	t.Helper()
	m := &monitor{cmd: exec.Command(os.Args[0]), log: filepath.Join(w.dir, "monitor.log")}
	m.cmd.Env = append(os.Environ(), "DAEMON_TEST_DIR="+w.dir)
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()

	m.cmd.Stderr = log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { m.kill() })

	said, err := bufio.NewReader(stdout).ReadString('\n')
	if said == "ready\n" {
		return m, nil
	}

	m.cmd.Wait()
	return nil, fmt.Errorf("the monitor said %q: %w", said, err)
}

func (m *monitor) kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

// serve starts a monitor and connects to it.
func (w *world) serve(t *testing.T) (*monitor, *client) {
	t.Helper()
	m, err := w.start(t)
	if err != nil {
		t.Fatal(err)
	}
	return m, w.connect(t)
}

// container returns what a create of a container needs that runs a shell script once it is started.
func (w *world) container(t *testing.T, id, script string) wire.Container {
	t.Helper()
	return wire.Container{
		ID:      id,
		Bundle:  monitortest.FakeBundle(t, filepath.Join(w.dir, "bundle-"+id), script),
		Runtime: w.runtime,
		LogPath: filepath.Join(w.dir, "logs", id+".log"),
	}
}

// startProgram lets the program of a created container run.
func (w *world) startProgram(t *testing.T, id string) {
	t.Helper()
	if err := w.runner.Start(t.Context(), w.runtime, id); err != nil {
		t.Fatal(err)
	}
}

// log returns what a container wrote to stdout, by its log.
func (w *world) log(t *testing.T, id string) string {
	t.Helper()
	return monitortest.LogText(t, filepath.Join(w.dir, "logs", id+".log"), "stdout")
}

// left lists the directories of containers.
func (w *world) left(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.stateDir(), "containers"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// client is a client of the monitor that shows each message.
type client struct {
	conn   *wire.Conn
	seq    uint64
	known  map[string]wire.Status // from the monitor's list
	files  map[string]wire.Files
	events []wire.Message // received and not yet looked at
}

// connect connects to the monitor and takes its list of containers.
func (w *world) connect(t *testing.T) *client {
	t.Helper()
	c := w.dial(t)
	c.hello(t)
	return c
}

func (w *world) dial(t *testing.T) *client {
	t.Helper()
	conn, err := wire.Dial(filepath.Join(w.dir, "m.sock"))
	if err != nil {
		t.Fatal(err)
	}

	c := &client{conn: conn, known: map[string]wire.Status{}, files: map[string]wire.Files{}}
	t.Cleanup(func() {
		conn.Close()
		for _, files := range c.files {
			files.Close()
		}
	})

	return c
}

func (c *client) hello(t *testing.T) {
	t.Helper()
	if m, _ := c.call(t, wire.Message{Op: wire.OpHello}, nil); m.Fail != nil {
		t.Fatal(m.Fail.Err())
	}
}

// call sends a request and returns the answer. Events that come before it are kept.
func (c *client) call(t *testing.T, m wire.Message, files wire.Files) (wire.Message, wire.Files) {
	t.Helper()
	c.seq++
	m.Seq = c.seq
	if err := c.conn.Send(m, files); err != nil {
		t.Fatal(err)
	}

	for {
		got, gotFiles := c.receive(t)
		if got.Op == wire.OpReply && got.Seq == m.Seq {
			return got, gotFiles
		}

		gotFiles.Close()
		c.events = append(c.events, got)
	}
}

func (c *client) receive(t *testing.T) (wire.Message, wire.Files) {
	t.Helper()
	m, files, err := c.conn.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if m.Op == wire.OpContainer {
		c.known[m.Status.ID] = *m.Status
		c.files[m.Status.ID] = files
		files = nil
	}
	return m, files
}

// event waits for the next event of a kind.
func (c *client) event(t *testing.T, op wire.Op) wire.Message {
	t.Helper()
	for i, m := range c.events {
		if m.Op == op {
			c.events = append(c.events[:i], c.events[i+1:]...)
			return m
		}
	}

	for {
		m, files := c.receive(t)
		files.Close()
		if m.Op == op {
			return m
		}

		c.events = append(c.events, m)
	}
}

// create makes a container and keeps its descriptors.
func (c *client) create(t *testing.T, want wire.Container) wire.Status {
	t.Helper()
	m, files := c.call(t, wire.Message{Op: wire.OpCreate, ID: want.ID, Container: &want}, nil)
	if m.Fail != nil {
		t.Fatal(m.Fail.Err())
	}
	c.known[want.ID] = *m.Status
	c.files[want.ID] = files
	return *m.Status
}

// do sends a request for a container and returns its error.
func (c *client) do(t *testing.T, op wire.Op, id string) error {
	t.Helper()
	m, files := c.call(t, wire.Message{Op: op, ID: id}, nil)
	files.Close()
	return m.Fail.Err()
}

// exit waits for the next exit of a container, which must be that one.
func (c *client) exit(t *testing.T, id string) wire.Exit {
	t.Helper()
	m := c.event(t, wire.OpExit)
	if m.Exit == nil || m.Exit.ID != id {
		t.Fatalf("exit %+v, want one of container %s", m.Exit, id)
	}
	return *m.Exit
}

// forget removes a container, so that no process of it outlives the test.
func (c *client) forget(t *testing.T, id string) {
	t.Helper()
	if err := c.do(t, wire.OpForget, id); err != nil {
		t.Errorf("forget container %s: %v", id, err)
	}
}

// contains fails the test unless text has all words.
func contains(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not contain %q", text, word)
		}
	}
}
