package hook_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/trivet-node/trivet/node/hook"
)

// shell is a runtime: "true" succeeds, "false" fails with code 1, everything else cannot be run.
type shell struct{ containers []string }

func (s *shell) ExecSync(
	_ context.Context, id string, command []string, _ time.Duration,
) (output []byte, code int32, err error) {
	s.containers = append(s.containers, id)
	switch command[0] {
	case "true":
		return nil, 0, nil
	case "false":
		return []byte("broken\xff"), 1, nil
	}
	return nil, 0, errors.New("no such file")
}

func TestCommandsRunInTheContainer(t *testing.T) {
	for command, want := range map[string]string{
		"true":       "",
		"false -v":   "command 'false -v' exited with 1: broken?",
		"other file": `exec "other file": no such file`,
	} {
		s := &shell{}
		h := &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: strings.Fields(command)}}
		err := hook.Run(t.Context(), s, h, hook.Target{ID: "id"})
		if got := fmt.Sprint(err); err != nil && got != want || err == nil && want != "" {
			t.Errorf("%s: %v, want %q", command, err, want)
		}
		if len(s.containers) != 1 || s.containers[0] != "id" {
			t.Errorf("%s: ran in %v", command, s.containers)
		}
	}
}

func TestHooksThatDoNothingSucceed(t *testing.T) {
	for name, h := range map[string]*v1.LifecycleHandler{
		"none": nil,
		"TCP":  {TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(1)}},
	} {
		if err := hook.Run(t.Context(), nil, h, hook.Target{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSleepLastsUntilItIsOverOrNotWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 30}}
		began := time.Now()
		if err := hook.Run(t.Context(), nil, h, hook.Target{}); err != nil ||
			time.Since(began) != 30*time.Second {
			t.Errorf("slept %v: %v", time.Since(began), err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()

		began = time.Now()
		err := hook.Run(ctx, nil, h, hook.Target{})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("slept %v: %v", time.Since(began), err)
		}
	})
}

// getFrom runs a hook that requests a path of a server.
func getFrom(t *testing.T, server string, scheme v1.URIScheme, path string) error {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}

	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}

	h := &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{
		Scheme: scheme,
		Path:   path,
		Port:   intstr.FromInt(port),
	}}

	return hook.Run(t.Context(), nil, h, hook.Target{Spec: &v1.Container{}, IP: u.Hostname()})
}

func TestRequestsOfHooks(t *testing.T) {
	elsewhere := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		failed bool
	}{
		"success": {answer: func(http.ResponseWriter, *http.Request) {}},
		"failure": {
			answer: func(
				w http.ResponseWriter,
				_ *http.Request,
			) {
				w.WriteHeader(http.StatusInternalServerError)
			},
			failed: true,
		},
		"redirect to another host is not followed": {answer: elsewhere},
	} {
		t.Run(name, func(t *testing.T) {
			agents := make(chan string, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				agents <- r.Header.Get("User-Agent") + " " + r.URL.Path
				c.answer(w, r)
			}))
			defer server.Close()

			if err := getFrom(t, server.URL, "", "hook"); (err != nil) != c.failed {
				t.Errorf("error %v", err)
			}
			if got := <-agents; got != "kube-lifecycle/1.37 /hook" {
				t.Errorf("request of %q", got)
			}
		})
	}
}

func TestRequestOverTLSFallsBackToHTTP(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	overTLS, plain := httptest.NewTLSServer(ok), httptest.NewServer(ok)
	defer overTLS.Close()
	defer plain.Close()

	for name, server := range map[string]string{
		"a server that speaks TLS":  overTLS.URL,
		"one that speaks HTTP":      plain.URL,
		"one that greets its guest": greeter(t),
	} {
		if err := getFrom(t, server, v1.URISchemeHTTPS, "/"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// greeter is a server that answers to the beginning of TLS with what is neither TLS nor HTTP, and to HTTP
// with HTTP.
func greeter(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}

			greet(conn)
		}
	}()

	return "http://" + l.Addr().String()
}

func greet(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	if first, err := in.Peek(1); err != nil || first[0] != 'G' {
		_, _ = io.WriteString(conn, "220 hello\r\n")
		return
	}
	if _, err := http.ReadRequest(in); err != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
}
