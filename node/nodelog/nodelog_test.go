package nodelog_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/node/nodelog"
)

// logs makes a directory of logs beside a file that is not one of them.
func logs(t *testing.T) nodelog.Dir {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "log")
	for path, text := range map[string]string{
		"secret":         "outside",
		"log/a.log":      "one\n",
		"log/pods/b.log": "two\n",
		"log/odd?#.log":  "three\n",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	for link, target := range map[string]string{
		"log/inside":   "a.log",
		"log/outside":  "../secret",
		"log/absolute": filepath.Join(root, "secret"),
	} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}

	return nodelog.Dir(dir)
}

// get asks for a path and returns the status and the body.
func get(d nodelog.Dir, path string) (code int, body string, header http.Header) {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	data, _ := io.ReadAll(w.Result().Body)
	return w.Code, string(data), w.Header()
}

func TestFilesAreServed(t *testing.T) {
	d := logs(t)
	for path, want := range map[string]string{
		"/logs/a.log":         "one\n",
		"/logs/pods/b.log":    "two\n",
		"/logs/inside":        "one\n",
		"/logs/odd%3F%23.log": "three\n",
	} {
		code, body, header := get(d, path)
		if code != http.StatusOK || body != want || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}

	if code, _, _ := get(d, "/logs/none"); code != http.StatusNotFound {
		t.Errorf("a file that does not exist: %d", code)
	}
	if code, _, _ := get(d, "/logs/a.log/x"); code != http.StatusNotFound {
		t.Errorf("a file below a file: %d", code)
	}
}

func TestDirectoriesAreListedAsLinks(t *testing.T) {
	d := logs(t)
	code, body, _ := get(d, "/logs/")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}

	for _, want := range []string{
		`<a href="./a.log">a.log</a>`,
		`<a href="./pods/">pods/</a>`,
		`<a href="./odd%3F%23.log">odd?#.log</a>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}

	code, _, header := get(d, "/logs/pods")
	if code != http.StatusMovedPermanently || header.Get("Location") != "./pods/" {
		t.Errorf("a directory without a slash: %d to %q", code, header.Get("Location"))
	}
}

// Pods may have the directory mounted.
func TestNothingOutsideOfTheDirectoryIsServed(t *testing.T) {
	d := logs(t)
	for _, path := range []string{
		"/logs/outside",
		"/logs/absolute",
		"/logs/../secret",
		"/logs/pods/../../secret",
	} {
		code, body, _ := get(d, path)
		if code == http.StatusOK || strings.Contains(body, "outside\n") || body == "outside" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
}

func TestWhatIsNotAFileIsRefusedWithoutBeingOpened(t *testing.T) {
	d := logs(t)
	if err := unix.Mkfifo(filepath.Join(string(d), "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}

	// opening it would block
	code, body, _ := get(d, "/logs/pipe")
	if code != http.StatusForbidden || !strings.Contains(body, "neither a file nor a directory") {
		t.Errorf("%d %q", code, body)
	}
}

func TestWithoutTheDirectoryThereIsAnError(t *testing.T) {
	if code, _, _ := get(nodelog.Dir("/does/not/exist"), "/logs/"); code != http.StatusInternalServerError {
		t.Errorf("%d", code)
	}
}
