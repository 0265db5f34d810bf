package termination_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/node/termination"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsEmptyAndWritableForEverybody(t *testing.T) {
	dir := t.TempDir()

	// the second time it has a message of an earlier try
	for range 2 {
		path, err := termination.Create(dir, "app", 10)
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(dir, "containers", "app", "0000000a"); path != want {
			t.Errorf("path %s, want %s", path, want)
		}

		info, err := os.Stat(path)
		if err != nil || info.Size() != 0 || info.Mode() != 0o666 {
			t.Errorf("%v, %v", info, err)
		}

		write(t, path, "message")
	}

	for range 2 {
		if err := termination.Remove(dir, "app", 10); err != nil {
			t.Error(err)
		}
	}

	if _, err := os.Stat(filepath.Join(dir, "containers", "app", "0000000a")); !errors.Is(
		err,
		fs.ErrNotExist,
	) {
		t.Errorf("the file is still there: %v", err)
	}
}

// What a container made of its file must not make the agent write elsewhere, or wait.
func TestFileIsNotMadeThroughALinkOrAFIFO(t *testing.T) {
	dir := t.TempDir()
	path, err := termination.Create(dir, "app", 0)
	if err != nil {
		t.Fatal(err)
	}

	for name, replace := range map[string]func() error{
		"link": func() error { return os.Symlink(filepath.Join(dir, "elsewhere"), path) },
		"FIFO": func() error { return unix.Mkfifo(path, 0o600) },
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := replace(); err != nil {
			t.Fatal(err)
		}
		if _, err := termination.Create(dir, "app", 0); err == nil {
			t.Errorf("made through a %s", name)
		}
	}

	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("a file was made where the link leads")
	}
}

func TestMessage(t *testing.T) {
	dir := t.TempDir()
	file, empty, log := filepath.Join(dir, "file"), filepath.Join(dir, "empty"), filepath.Join(dir, "log")
	write(t, file, "goodbye")
	write(t, empty, "")
	write(t, log, "2026-01-01T00:00:00Z stdout F last words\n")
	long := filepath.Join(dir, "long")
	write(t, long, strings.Repeat("a", 100)+strings.Repeat("b", 4096))
	binary := filepath.Join(dir, "binary")
	write(t, binary, "a\xffb")

	for name, c := range map[string]struct {
		ended termination.Ended
		want  string
	}{
		"the container's": {
			ended: termination.Ended{File: file, Log: log, FallBackToLog: true},
			want:  "goodbye",
		},
		"the runtime's and the container's": {
			ended: termination.Ended{Message: "OOM", File: file},
			want:  "OOM: goodbye",
		},
		"the runtime's alone": {
			ended: termination.Ended{Message: "OOM", File: empty},
			want:  "OOM",
		},
		"the log's end for an empty file": {
			ended: termination.Ended{File: empty, Log: log, FallBackToLog: true},
			want:  "last words\n",
		},
		"the log's end where there is no file": {
			ended: termination.Ended{Message: "OOM", Log: log, FallBackToLog: true},
			want:  "OOM: last words\n",
		},
		"no fallback, no message": {
			ended: termination.Ended{File: empty, Log: log},
		},
		"the end of a long one": {
			ended: termination.Ended{File: long},
			want:  strings.Repeat("b", 4096),
		},
		"what is not text is marked": {
			ended: termination.Ended{File: binary},
			want:  "a?b",
		},
	} {
		if got := c.ended.Text(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestMessageIsNotReadThroughALink(t *testing.T) {
	dir := t.TempDir()
	secret, link := filepath.Join(dir, "secret"), filepath.Join(dir, "message")
	write(t, secret, "secret")
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	if got := (termination.Ended{File: link}).Text(); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestNothingIsRemovedByANameThatIsNotOfAContainer(t *testing.T) {
	dir := t.TempDir()
	path, err := termination.Create(dir, "app", 0)
	if err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"", "../containers/app", "a/../app"} {
		if err := termination.Remove(dir, name, 0); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}

	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
