package logrotate

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trivet-node/trivet/node/podlog/containerlog"
	"github.com/trivet-node/trivet/node/runtime"
)

// fake is a runtime with one container, id, whose log it makes when it is told to reopen it.
type fake struct {
	err  error // of reopening
	path string

	// mu guards what follows.
	mu       sync.Mutex
	ended    bool
	failed   bool
	statuses int // how often the status was asked for
	reopened int
}

// times is how often the log was reopened.
func (f *fake) times() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reopened
}

// fail has the runtime fail from now on.
func (f *fake) fail() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = true
}

func (f *fake) Containers(context.Context, runtime.Selection) ([]runtime.Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed {
		return nil, errors.New("no list")
	}
	if f.ended {
		return nil, nil
	}
	return []runtime.Container{{ID: "id"}}, nil
}

func (f *fake) ContainerStatus(context.Context, string) (runtime.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.statuses++
	return runtime.Status{LogPath: f.path}, nil
}

func (f *fake) ReopenLog(context.Context, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed {
		return errors.New("no")
	}
	if f.err != nil {
		return f.err
	}
	f.reopened++
	return os.WriteFile(f.path, nil, 0o600)
}

// start returns a rotator of a runtime whose container has a log of this text.
func start(t *testing.T, cfg Config, text string) (*Rotator, *fake) {
	t.Helper()
	f := &fake{path: filepath.Join(t.TempDir(), "0.log")}
	write(t, f.path, text)
	cfg.Runtime = f
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}

	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	return r, f
}

// look is one look at all logs, with all that it begins.
func (r *Rotator) look(ctx context.Context) error {
	err := r.list(ctx)
	r.check(ctx, time.Now(), true)
	r.running.Wait()
	return err
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// list returns the names of the files beside a log, that included.
func list(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestRotationKeepsTheNewestFilesAndLosesNoLine(t *testing.T) {
	r, f := start(t, Config{MaxFiles: 4, MaxSize: 1}, "2026-01-05T00:00:00Z stdout F now\n")
	// Earlier rotations, one of them interrupted while it compressed.
	for i := range 3 {
		name := fmt.Sprintf("%s.2026010%d-000000", f.path, i+1)
		write(t, name, fmt.Sprintf("2026-01-0%dT00:00:00Z stdout F old %d\n", i+1, i))
	}

	write(t, f.path+".20260103-000000.tmp", "torn")

	if err := r.look(t.Context()); err != nil {
		t.Fatal(err)
	}

	var out bytes.Buffer
	if err := containerlog.Read(t.Context(), f.path, containerlog.Options{Tail: -1}, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != "old 1\nold 2\nnow\n" {
		t.Errorf("the log is %q", out.String())
	}

	files, err := containerlog.Rotated(f.path)
	if err != nil || len(files) != 3 {
		t.Fatalf("files %v, %v", files, err)
	}
	if !strings.HasSuffix(files[1], ".gz") || strings.HasSuffix(files[2], ".gz") {
		t.Errorf("files %v: all but the newest are to be compressed", files)
	}
	if slices.Contains(list(t, f.path), "0.log.20260103-000000.tmp") {
		t.Error("a torn file stays")
	}
}

func TestCompressedFilesHaveTheSameContent(t *testing.T) {
	name := filepath.Join(t.TempDir(), "0.log.20260101-000000")
	want := strings.Repeat("line\n", 10_000)
	write(t, name, want)
	if err := compress(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if got := list(t, name); len(got) != 1 {
		t.Errorf("files %v", got)
	}

	data, err := os.ReadFile(name + ".gz")
	if err != nil {
		t.Fatal(err)
	}

	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || string(got) != want {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
	}
}

func TestLogThatIsNotReopenedKeepsItsName(t *testing.T) {
	r, f := start(t, Config{}, "x")
	f.failed = true
	if err := r.rotate(t.Context(), "id", f.path); err == nil {
		t.Error("no error")
	}
	if data, err := os.ReadFile(f.path); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestOnlyLogsThatAreTooLargeAreRotated(t *testing.T) {
	for text, want := range map[string]int{"small": 1, "too large": 2} {
		r, f := start(t, Config{MaxSize: 6}, text)
		for range 2 {
			if err := r.look(t.Context()); err != nil {
				t.Fatal(err)
			}
		}

		if got := list(t, f.path); len(got) != want {
			t.Errorf("%s: files %v", text, got)
		}
		if f.statuses != 1 {
			t.Errorf("%s: asked %d times where the log is", text, f.statuses)
		}
	}
}

// An agent that is killed between the rename and the reopening leaves no log.
func TestLogThatIsMissingIsReopened(t *testing.T) {
	r, f := start(t, Config{}, "")
	if err := os.Rename(f.path, f.path+".20260101-000000"); err != nil {
		t.Fatal(err)
	}
	if err := r.look(t.Context()); err != nil || f.reopened != 1 {
		t.Errorf("reopened %d times, %v", f.reopened, err)
	}
}

func TestContainersThatHaveEndedAreForgotten(t *testing.T) {
	r, f := start(t, Config{}, "")
	for _, want := range []int{1, 0} {
		if err := r.look(t.Context()); err != nil || len(r.logs) != want {
			t.Errorf("logs %v, %v; want %d", r.logs, err, want)
		}
		f.ended = true
	}
}

func TestLogsAreCheckedPeriodically(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := start(t, Config{MaxSize: 1, Every: time.Minute}, "too large")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		for _, want := range []int{0, 1} {
			synctest.Wait()
			if f.times() != want {
				t.Errorf("rotated %d times, want %d", f.times(), want)
			}

			time.Sleep(time.Minute)
			synctest.Wait()
		}

		// which is logged, and tried again
		f.fail()
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestOneFileAloneIsRefused(t *testing.T) {
	if _, err := New(Config{MaxFiles: 1}); err == nil {
		t.Error("no error")
	}
}
