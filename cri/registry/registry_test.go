package registry

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func TestReferencesAreWrittenOut(t *testing.T) {
	sum := digest.FromString("x").String()
	for text, want := range map[string]string{
		"busybox":                      "docker.io/library/busybox:latest",
		"a/b:1":                        "docker.io/a/b:1",
		"localhost:5000/x":             "localhost:5000/x:latest",
		"registry.k8s.io/pause@" + sum: "registry.k8s.io/pause@" + sum,
		"busybox:1@" + sum:             "docker.io/library/busybox@" + sum,
	} {
		if got, err := ParseReference(text); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v; want %s", text, got, err, want)
		}
	}

	for _, text := range []string{"", "a/B", "x:y:z", "x@sha256:12", "../x", "x y"} {
		if got, err := ParseReference(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	f.Add("registry.k8s.io/pause:3.10@sha256:" + strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseReference(text)
		if err != nil {
			return
		}
		if again, err := ParseReference(r.String()); err != nil || again != r {
			t.Errorf("%q is %q, which is %v, %v", text, r, again, err)
		}
	})
}

func writeHosts(t *testing.T, host, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, host), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, host, "hosts.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestHostsAreAskedInTheOrderOfTheFile(t *testing.T) {
	dir := writeHosts(t, "docker.io", `
server = "https://docker.io"
[host."http://zebra:5000"]
  capabilities = ["pull", "resolve"]
  [host."http://zebra:5000".header]
    x-one = ["a", "b"]
[host."https://alpha/prefix"]
  capabilities = ["pull"]
  override_path = true
  skip_verify = true
`)

	list, err := endpoints(dir, "docker.io")
	if err != nil {
		t.Fatal(err)
	}

	var got []string
	for _, e := range list {
		got = append(
			got,
			fmt.Sprintf("%s resolve=%t mirror=%t header=%d insecure=%t", e.base.String(), e.resolve, e.mirror,
				len(e.header.Values("x-one")), e.tls != nil && e.tls.InsecureSkipVerify),
		)
	}

	want := []string{
		"http://zebra:5000/v2 resolve=true mirror=true header=2 insecure=false",
		"https://alpha/prefix resolve=false mirror=true header=0 insecure=true",
		"https://registry-1.docker.io/v2 resolve=true mirror=false header=0 insecure=false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	for _, bad := range []string{
		"server = 1", `[host."ftp://x"]`, `capabilities = ["fly"]`, `ca = "missing"`, `client = 7`, "[[[",
	} {
		if list, err := endpoints(writeHosts(t, "docker.io", bad), "docker.io"); err == nil {
			t.Errorf("%s gave %v", bad, list)
		}
	}
}

func FuzzHosts(f *testing.F) {
	f.Add([]byte(`server = "https://x"
[host."http://y"]
capabilities=["pull"]
client=[["a","b"]]
`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseHosts(data, t.TempDir(), "x", url.URL{Scheme: "https", Host: "x"})
		if err == nil && len(list) == 0 {
			t.Error("no endpoint and no error")
		}
	})
}

// fake is a registry whose answers a test chooses.
func fake(t *testing.T, handler http.HandlerFunc) (host string) {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func manifestOf(t *testing.T, c *Client, reference string, auth Auth) (Manifest, error) {
	t.Helper()
	ref, err := ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Open(ref, auth)
	if err != nil {
		t.Fatal(err)
	}
	return r.Manifest(t.Context())
}

func TestTheNextHostServesWhatTheFirstDoesNot(t *testing.T) {
	var namespaces []string
	broken := fake(t, func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	good := fake(t, func(w http.ResponseWriter, r *http.Request) {
		namespaces = append(namespaces, r.URL.Query().Get("ns"))
		fmt.Fprint(w, "{}")
	})

	hosts := fmt.Sprintf(`server = "http://%s"
[host."http://127.0.0.1:1"]
[host."http://%s"]
[host."http://%s"]
`, broken, broken, good)
	c := NewClient(Config{HostsDir: writeHosts(t, "example.org", hosts)})
	m, err := manifestOf(t, c, "example.org/a/b:1", Auth{})
	if err != nil || m.Digest != digest.FromString("{}") {
		t.Fatalf("%+v, %v", m, err)
	}
	if diff := cmp.Diff([]string{"example.org"}, namespaces); diff != "" {
		t.Error(diff)
	}
	other := "example.org/a/b@" + digest.FromString("other").String()
	if _, err := manifestOf(t, c, other, Auth{}); err == nil {
		t.Error("content of another digest was accepted")
	}
}

func TestBearerAndBasicAuthentication(t *testing.T) {
	var host string
	bearer := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			user, password, _ := r.BasicAuth()
			if user != "me" || password != "secret" || r.URL.Query().Get("scope") != "repository:x:pull" ||
				r.URL.Query().Get("service") != "s, t" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}

			fmt.Fprint(w, `{"access_token":"T"}`)

		case r.Header.Get("Authorization") == "Bearer T":
			fmt.Fprint(w, "{}")
		default:
			w.Header().Set("WWW-Authenticate",
				`Bearer realm="http://`+host+`/token",service="s, t",scope="repository:x:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}

	basic := func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}

		fmt.Fprint(w, "{}")
	}

	encoded, err := ParseAuth(Auth{}, "bWU6c2VjcmV0")
	if err != nil {
		t.Fatal(err)
	}

	for name, handler := range map[string]http.HandlerFunc{"bearer": bearer, "basic": basic} {
		t.Run(name, func(t *testing.T) {
			host = fake(t, handler)
			c := NewClient(Config{})
			if _, err := manifestOf(t, c, host+"/x:1", encoded); err != nil {
				t.Error(err)
			}

			for _, auth := range []Auth{
				{},
				{Username: "me", Password: "wrong"},
				{Username: "me", Password: "secret", ServerAddress: "https://elsewhere.org/v1/"},
			} {
				if _, err := manifestOf(t, c, host+"/x:1", auth); !errors.Is(err, ErrDenied) {
					t.Errorf("%+v: %v", auth, err)
				}
			}
		})
	}
}

func TestCertificateOfHostsFile(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(
		w http.ResponseWriter,
		_ *http.Request,
	) {
		fmt.Fprint(w, "{}")
	}))
	defer s.Close()

	s.Config.ErrorLog = nil
	dir := writeHosts(t, "secure.example", "server = \""+s.URL+"\"\nca = \"ca.pem\"\n")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "secure.example", "ca.pem"), certificate, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := manifestOf(t, NewClient(Config{HostsDir: dir}), "secure.example/x:1", Auth{}); err != nil {
		t.Error(err)
	}
}
