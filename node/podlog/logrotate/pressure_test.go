package logrotate

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/node/podlog/containerlog"
	"github.com/trivet-node/trivet/node/runtime"
)

func TestALogIsLookedAtAgainBeforeItIsTooLarge(t *testing.T) {
	cfg := Config{MaxSize: 1000, Every: 10 * time.Second}
	for _, c := range []struct {
		name        string
		size, grown int64
		in          time.Duration
		want        time.Duration
	}{
		{"it does not grow", 900, 0, time.Second, 10 * time.Second},
		{"it has become smaller", 10, -900, time.Second, 10 * time.Second},
		{"it grows slowly", 500, 10, time.Second, 10 * time.Second},
		{"it is too large in five seconds", 500, 100, time.Second, 5 * time.Second},
		{"it is too large in less than a second", 500, 5000, time.Second, time.Second},
		{"it is rotated now", 1000, 500, time.Second, 2 * time.Second},
		{"it is far too large", 1 << 30, 1 << 30, 10 * time.Second, time.Second},
		{"no time has passed", 500, 100, 0, 10 * time.Second},
	} {
		if got := untilFull(cfg, c.size, c.grown, c.in); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// rotating runs a rotator until the test ends.
func (r *Rotator) rotating(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// grow appends bytes to a log.
func grow(t *testing.T, path string, bytes int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Repeat("x", bytes)); err != nil {
		t.Fatal(err)
	}
}

// usage is how many bytes the files of a log have together.
func usage(t *testing.T, path string) (bytes int64) {
	t.Helper()
	for _, name := range list(t, path) {
		info, err := os.Stat(strings.TrimSuffix(path, "0.log") + name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

func TestAContainerThatWritesTooFastStaysInItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// 10 times the size of a file in each second, for a minute.
		r, f := start(t, Config{MaxSize: 1000, MaxFiles: 5}, "")
		r.rotating(t)
		most := int64(0)
		for range 60 {
			grow(t, f.path, 10_000)
			time.Sleep(time.Second)
			synctest.Wait()
			most = max(most, usage(t, f.path))
		}

		// At first nobody knows how fast it is: two periods. From then on each file has what is written in
		// one second.
		if most > 250_000 {
			t.Errorf("%d bytes were in use", most)
		}
		if now := usage(t, f.path); now > 60_000 {
			t.Errorf("%d bytes are in use in the end", now)
		}

		for _, name := range list(t, f.path) {
			if strings.HasSuffix(name, ".gz") {
				t.Errorf("%s was compressed, although it is removed in a moment", name)
			}
		}

		// When it is over, what is left is compressed, and nothing is looked at in between.
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		files, err := containerlog.Rotated(f.path)
		if err != nil || len(files) != 4 {
			t.Fatalf("files %q, %v", files, err)
		}

		for _, name := range files[:3] {
			if !strings.HasSuffix(name, ".gz") {
				t.Errorf("%s is not compressed", name)
			}
		}
	})
}

func TestALogIsNotRotatedTwiceInASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := start(t, Config{MaxSize: 1}, "first")
		if err := r.look(t.Context()); err != nil {
			t.Fatal(err)
		}

		write(t, f.path, "second")
		if err := r.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.reopened != 1 || len(list(t, f.path)) != 2 {
			t.Errorf("rotated %d times: %q", f.reopened, list(t, f.path))
		}

		time.Sleep(time.Second)
		if err := r.look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.reopened != 2 || len(list(t, f.path)) != 3 {
			t.Errorf("rotated %d times: %q", f.reopened, list(t, f.path))
		}
	})
}

func TestLogsThatGoMeanwhileAreNoError(t *testing.T) {
	r, f := start(t, Config{MaxSize: 1}, "too large")
	if err := os.RemoveAll(filepath.Dir(f.path)); err != nil {
		t.Fatal(err)
	}
	f.err = runtime.ErrNotFound
	if err := r.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l := r.logs["id"]; l.notRotated != "" || l.notCompressed != "" {
		t.Errorf("%+v", l)
	}
}

func TestAnErrorIsSaidOnceAndWhenItIsOver(t *testing.T) {
	var log bytes.Buffer
	var last lastError
	logger := slog.New(slog.NewTextHandler(&log, nil))
	full := func(name string) error { return &fs.PathError{Op: "write", Path: name, Err: unix.ENOSPC} }
	other := errors.New("other")
	for _, err := range []error{nil, full("a"), full("b"), other, nil, nil} {
		last.report(logger, err, "rotation")
	}

	var got []string
	for line := range strings.Lines(log.String()) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), "level=")
		got = append(got, line)
	}

	want := []string{
		`WARN msg="logs are not kept small" failed=rotation err="write a: no space left on device"`,
		`WARN msg="logs are not kept small" failed=rotation err=other`,
		`INFO msg="logs are kept small again" works=rotation`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("said %q, want %q", got, want)
	}
}
