package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLettersMayHaveTheirValueAttached(t *testing.T) {
	for text, want := range map[string]request{
		"-q -O - -T 1 http://a:80": {url: "http://a:80", output: "-", quiet: true, timeout: time.Second},
		"-T 5 -qO- a/b": {
			url:     "http://a/b",
			output:  "-",
			quiet:   true,
			timeout: 5 * time.Second,
		},
		"http://a/b/c.txt": {url: "http://a/b/c.txt", output: "c.txt", timeout: 15 * time.Minute},
		"-T 0 http://a":    {url: "http://a", output: "index.html", timeout: 15 * time.Minute},
		"--quiet -O x http://[::1]:80": {
			url:     "http://[::1]:80",
			output:  "x",
			quiet:   true,
			timeout: 15 * time.Minute,
		},
	} {
		if got, err := parse(strings.Fields(text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}

	for _, bad := range []string{"", "-q", "-O", "-T x http://a", "-Z http://a", "--no http://a", "a b"} {
		if r, err := parse(strings.Fields(bad)); err == nil {
			t.Errorf("%q is taken: %+v", bad, r)
		}
	}
}

func TestTheAnswerIsWrittenAndWhatIsPostedArrives(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		io.WriteString(w, q.Method+" "+q.URL.Path+" "+string(body))
	}))
	defer server.Close()

	var out, said bytes.Buffer
	run(t, &out, &said, "-O-", "--post-data=a b", server.URL+"/write")
	if out.String() != "POST /write a b" || !strings.Contains(said.String(), "writing to -") {
		t.Errorf("printed %q, said %q", out.String(), said.String())
	}

	file := filepath.Join(t.TempDir(), "x")
	run(t, &out, &said, "-q", "-O", file, server.URL+"/read")
	if data, err := os.ReadFile(file); err != nil || string(data) != "GET /read " {
		t.Errorf("file has %q, %v", data, err)
	}
}

func run(t *testing.T, out, said io.Writer, args ...string) {
	t.Helper()
	r, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.run(out, said); err != nil {
		t.Fatal(err)
	}
}

func TestFailuresHaveTheWordsOfTheApplet(t *testing.T) {
	missing := httptest.NewServer(http.NotFoundHandler())
	defer missing.Close()

	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()

	// It takes connections and never answers.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	for _, c := range []struct {
		url     string
		timeout time.Duration
		want    string
	}{
		{missing.URL, time.Minute, "server returned error: HTTP/1.1 404 Not Found"},
		{closed.URL, time.Minute, "can't connect to remote host (127.0.0.1): Connection refused"},
		{"http://" + silent.Addr().String(), time.Second / 20, "download timed out"},
	} {
		r := request{
			url:     c.url,
			output:  "-",
			quiet:   true,
			timeout: c.timeout,
		}
		if err := r.run(io.Discard, io.Discard); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.url, err, c.want)
		}
	}
}
