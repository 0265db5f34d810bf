package kubeletapi_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/node/kubeletapi"
)

// all is everything that a setting can switch on.
func all(dir string) func(*kubeletapi.Config) {
	return func(c *kubeletapi.Config) {
		c.LogDir, c.CheckpointDir = dir, dir
		c.Configz = map[string]string{}
		c.Flagz = map[string]string{"node-ip": "192.0.2.7"}
		c.Statusz = &kubeletapi.Status{Version: "1.37.2", Started: time.Now().Add(-3700 * time.Second)}
	}
}

// answers checks the codes of an endpoint on which everything is configured.
func answers(t *testing.T, off kubeletapi.Off, want map[string]int) {
	t.Helper()
	base := serve(t, all(t.TempDir()), func(cfg *kubeletapi.Config) { cfg.Off = off })
	for path, code := range want {
		if got, body := get(t, base, path); got != code {
			t.Errorf("%+v: %s: %d %q, want %d", off, path, got, body, code)
		}
	}
}

func TestEndpointsAreServedUnlessTheyAreSwitchedOff(t *testing.T) {
	answers(t, kubeletapi.Off{}, map[string]int{
		"/logs/":                200,
		"/runningpods/":         200,
		"/configz":              200,
		"/statusz":              200,
		"/flagz":                200,
		"/debug/pprof/":         404,
		"/debug/flags/v":        404,
		"/containerLogs/ns/p/c": 200,
		"/run/ns/p/c":           405,
		"/checkpoint/ns/p/c":    405,
		"/allocatedPods":        404,
	})
}

func TestEndpointsThatAreSwitchedOffAreRefused(t *testing.T) {
	const off = http.StatusMethodNotAllowed
	answers(t, kubeletapi.Off{Debugging: true}, map[string]int{
		"/healthz":                        200,
		"/pods":                           200,
		"/metrics":                        404,
		"/metrics/slis":                   200,
		"/stats/summary":                  501,
		"/logs/":                          off,
		"/logs/x":                         off,
		"/runningpods/":                   off,
		"/containerLogs/ns/p/c":           off,
		"/exec/ns/p/c?command=x&output=1": off,
		"/attach/ns/p/c":                  off,
		"/portForward/ns/p":               off,
		"/run/ns/p/c":                     off,
		"/debug/pprof/heap":               off,
		"/configz":                        404,
		"/checkpoint/ns/p/c":              404,
		"/statusz":                        404,
		"/flagz":                          404,
	})

	// The other switches are for one path each.
	answers(t, kubeletapi.Off{SystemLogs: true}, map[string]int{
		"/logs/":                off,
		"/logs/x":               off,
		"/containerLogs/ns/p/c": 200,
	})

	answers(t, kubeletapi.Off{Profiling: true}, map[string]int{
		"/debug/pprof/":     off,
		"/debug/pprof/heap": off,
		"/logs/":            200,
	})

	answers(t, kubeletapi.Off{DebugFlags: true}, map[string]int{
		"/debug/flags/v": off,
		"/logs/":         200,
	})
}

func TestWhatIsNotConfiguredIsNotFound(t *testing.T) {
	base := serve(t)
	for _, path := range []string{"/logs/", "/configz", "/statusz", "/flagz"} {
		if code, _ := get(t, base, path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code, _ := post(t, base, "/checkpoint/ns/p/c"); code != http.StatusNotFound {
		t.Errorf("checkpoint: %d", code)
	}
}

func post(t *testing.T, base *url.URL, path string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true}}
	r, err := c.Post(base.String()+path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()

	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}

	return r.StatusCode, string(body)
}

func TestNodeLogsStayBelowTheirDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	secret := filepath.Join(filepath.Dir(dir), "secret")
	for path, text := range map[string]string{secret: "secret", filepath.Join(dir, "syslog"): "line\n",
		filepath.Join(dir, "pods/a?b"): "a"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	for name, target := range map[string]string{"out": secret, "up": "../secret", "in": "syslog"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}

	// A FIFO that no process writes to.
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}

	base := serve(t, all(dir))
	for path, c := range map[string]struct {
		code int
		want string
	}{
		"/logs/":      {200, `<a href="./pods/">pods/</a>`},
		"/logs/pods/": {200, `<a href="./a%3Fb">a?b</a>`},
		// This one is a redirect to the one above.
		"/logs/pods":        {200, `<a href="./a%3Fb">a?b</a>`},
		"/logs/syslog":      {200, "line\n"},
		"/logs/in":          {200, "line\n"},
		"/logs/none":        {404, ""},
		"/logs/syslog/none": {404, ""},
		"/logs/out":         {403, ""},
		"/logs/up":          {403, ""},
		"/logs/fifo":        {403, "neither a file nor a directory"},
	} {
		code, body := get(t, base, path)
		if code != c.code || !strings.Contains(body, c.want) || strings.Contains(body, "secret<") ||
			body == "secret" {
			t.Errorf("%s: %d %q, want %d %q", path, code, body, c.code, c.want)
		}
	}
}

func TestACheckpointIsWrittenByTheRuntime(t *testing.T) {
	n := newNode(t, all("/var/lib/kubelet/checkpoints"))
	base := n.base

	code, body := post(t, base, "/checkpoint/ns/p/c?timeout=300")
	const file = `/var/lib/kubelet/checkpoints/checkpoint-p_ns-c-\d{4}-[^"]*\.tar`
	form := regexp.MustCompile(`^{"items":\["(` + file + `)"\]}$`)
	found := form.FindStringSubmatch(body)
	if code != 200 || found == nil {
		t.Fatalf("%d %q", code, body)
	}
	if want := "CheckpointContainer c/1 300 " + found[1]; !slices.Contains(n.runtime.Calls(), want) {
		t.Errorf("calls %v, want %q", n.runtime.Calls(), want)
	}

	for path, want := range map[string]int{
		"/checkpoint/ns/none/c": 404,
		"/checkpoint/ns/p/none": 404,
		// 404 is kubelet's code for these.
		"/checkpoint/ns/p/c?timeout=soon":                  404,
		"/checkpoint/ns/p/c?timeout=-1":                    404,
		"/checkpoint/ns/p/c?timeout=1&timeout=99999999999": 200,
	} {
		if code, body := post(t, base, path); code != want {
			t.Errorf("%s: %d %q, want %d", path, code, body, want)
		}
	}

	asked := func(call string) bool { return strings.HasPrefix(call, "CheckpointContainer c/1 3600 ") }
	if !slices.ContainsFunc(n.runtime.Calls(), asked) {
		t.Errorf("calls %v, want a checkpoint that may take an hour", n.runtime.Calls())
	}

	n.runtime.FailOn("CheckpointContainer", errors.New("not enabled"))
	if code, body := post(t, base, "/checkpoint/ns/p/c"); code != 500 ||
		!strings.Contains(body, "checkpointing of ns/p/c failed") {
		t.Errorf("%d %q", code, body)
	}
}

func TestZPagesAnswerInTextAndAsObjects(t *testing.T) {
	base := serve(t, all(t.TempDir()))
	if code, body := get(t, base, "/statusz"); code != 200 || !strings.Contains(body, "kubelet statusz") ||
		!strings.Contains(body, "1 hr 01 min") {
		t.Errorf("statusz: %d %q", code, body)
	}

	if code, body := get(t, base, "/flagz"); code != 200 || !strings.Contains(body, "node-ip: 192.0.2.7\n") {
		t.Errorf("flagz: %d %q", code, body)
	}

	for path, want := range map[string]string{"/statusz": "Statusz", "/flagz": "Flagz"} {
		code, body := getAs(t, base, path, "application/json;v=v1beta1;g=config.k8s.io;as="+want)
		var object struct {
			Kind, APIVersion string
			Metadata         struct{ Name string }
		}
		if err := json.Unmarshal([]byte(body), &object); err != nil || code != 200 || object.Kind != want ||
			object.APIVersion != "config.k8s.io/v1beta1" || object.Metadata.Name != "kubelet" {
			t.Errorf("%s: %d %q, %v", path, code, body, err)
		}

		if code, _ := getAs(t, base, path, "application/json"); code != http.StatusNotAcceptable {
			t.Errorf("%s as plain JSON: %d", path, code)
		}
	}
}

func getAs(t *testing.T, base *url.URL, path, accept string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base.String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}

	request.Header.Set("Accept", accept)
	r, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()

	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}

	return r.StatusCode, string(body)
}

func TestTLSIsServedAsConfigured(t *testing.T) {
	// without it HTTP/2 has no suite that it needs
	const suite = tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
	for name, c := range map[string]struct {
		server, client *tls.Config
		ok             bool
	}{
		"TLS 1.2 by default": {nil, &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		"no TLS 1.1 by default": {nil, &tls.Config{MaxVersion: tls.VersionTLS11,
			MinVersion: tls.VersionTLS10}, false},
		"no TLS 1.2 below 1.3": {&tls.Config{MinVersion: tls.VersionTLS13},
			&tls.Config{MaxVersion: tls.VersionTLS12}, false},
		"TLS 1.3": {&tls.Config{MinVersion: tls.VersionTLS13}, &tls.Config{}, true},
		"the suite": {&tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}},
			&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}}, true},
		"no other suite": {&tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}},
			&tls.Config{MaxVersion: tls.VersionTLS12,
				CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, false},
		"the curve": {&tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}},
			&tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}}, true},
		"no other curve": {&tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}},
			&tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}, false},
	} {
		base := serve(t, func(cfg *kubeletapi.Config) { cfg.TLS = c.server })
		c.client.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", base.Host, c.client)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

func TestAStreamWithoutTrafficIsClosed(t *testing.T) {
	brief := func(c *kubeletapi.Config) { c.StreamIdleTime = 1500 * time.Millisecond }
	u := serve(t, brief).JoinPath("exec/ns/p/c")
	u.Scheme, u.RawQuery = "wss", "command=cat&input=1&output=1"
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Subprotocols: []string{"v4.channel.k8s.io"}}
	conn, _, err := dialer.Dial(u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	// The deadline is only there so that the test ends.
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}

	for {
		if _, _, err = conn.ReadMessage(); err != nil {
			break
		}
	}

	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		t.Errorf("the stream is still open: %v", err)
	}
}
