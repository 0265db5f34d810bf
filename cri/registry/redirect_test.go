package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// blobOf reads a blob of the repository x at host.
func blobOf(t *testing.T, c *Client, host, content string, auth Auth) (string, error) {
	t.Helper()
	ref, err := ParseReference(host + "/x:1")
	if err != nil {
		t.Fatal(err)
	}

	r, err := c.Open(ref, auth)
	if err != nil {
		t.Fatal(err)
	}

	b, err := r.Blob(t.Context(), digest.FromString(content), int64(len(content)))
	if err != nil {
		return "", err
	}
	defer b.Close()

	got, err := io.ReadAll(b)
	return string(got), err
}

func TestNothingOfTheFirstHostGoesWithARedirect(t *testing.T) {
	var leaked http.Header
	storage := fake(t, func(w http.ResponseWriter, r *http.Request) {
		leaked = r.Header.Clone()
		fmt.Fprint(w, "content")
	})

	var own []string
	host := fake(t, func(w http.ResponseWriter, r *http.Request) {
		own = append(own, r.Header.Get("X-Secret"))
		switch {
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		case !strings.HasSuffix(r.URL.Path, "/again"):
			http.Redirect(w, r, r.URL.Path+"/again", http.StatusTemporaryRedirect)
		default:
			http.Redirect(w, r, "http://"+storage+"/blob?signature=S", http.StatusTemporaryRedirect)
		}
	})

	hosts := fmt.Sprintf("server = \"http://%s\"\n[header]\nx-secret = \"S\"\nx-api-key = \"K\"\n", host)
	c := NewClient(Config{HostsDir: writeHosts(t, strings.Replace(host, ":", "_", 1)+"_", hosts)})
	got, err := blobOf(t, c, host, "content", Auth{Username: "me", Password: "secret"})
	if err != nil || got != "content" {
		t.Fatalf("%q, %v", got, err)
	}
	if len(own) != 3 || strings.Join(own, "") != "SSS" {
		t.Errorf("the first host got its header in %q, want in each of 3 requests", own)
	}

	for _, name := range []string{"X-Secret", "X-Api-Key", "Authorization", "Referer"} {
		if value := leaked.Get(name); value != "" {
			t.Errorf("the other host got %s: %s", name, value)
		}
	}

	if leaked.Get("User-Agent") != "trivet-cri" {
		t.Errorf("the other host was asked by %q", leaked.Get("User-Agent"))
	}
}

// The other host gets no credentials either if it asks for them by itself.
func TestAnotherHostCannotAskForCredentials(t *testing.T) {
	asked := false
	var storage string
	storage = fake(t, func(w http.ResponseWriter, r *http.Request) {
		asked = asked || r.URL.Path == "/token" || r.Header.Get("Authorization") != ""
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+storage+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	})

	host := fake(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+storage+"/blob", http.StatusFound)
	})
	_, err := blobOf(t, NewClient(Config{}), host, "x", Auth{Username: "me", Password: "secret"})
	if !errors.Is(err, ErrDenied) || asked {
		t.Errorf("error %v, credentials asked for %t", err, asked)
	}
}

func TestErrorsQuoteOnlyTheHostThatWasAsked(t *testing.T) {
	metadata := fake(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"a secret of the metadata service"}]}`)
	})

	host := fake(t, func(w http.ResponseWriter, r *http.Request) {
		switch repository := strings.Split(r.URL.Path, "/")[2]; repository {
		case "redirected":
			http.Redirect(w, r, "http://"+metadata+"/latest?signature=SIGNED", http.StatusSeeOther)
		case "token":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+metadata+`/latest"`)
			w.WriteHeader(http.StatusUnauthorized)
		case "unfollowed":
			w.WriteHeader(http.StatusFound)
			fmt.Fprint(w, "secret")
		case "nowhere":
			http.Redirect(w, r, "http://127.0.0.1:1/latest?signature=SIGNED", http.StatusFound)
		case "own":
			w.WriteHeader(http.StatusForbidden)
			const text = `{"errors":[{"code":"DENIED","message":"\u001b[2J\nplease pay\u202e %s"}]}`
			fmt.Fprintf(w, text, strings.Repeat("x", 50_000))
		}
	})

	for repository, want := range map[string]string{
		"redirected": "DENIED",
		"token":      "DENIED",
		"unfollowed": "302",
		"nowhere":    "127.0.0.1:1",
		"own":        "please pay",
	} {
		_, err := manifestOf(t, NewClient(Config{}), host+"/"+repository+":1", Auth{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not say %s", repository, err, want)
			continue
		}

		text := err.Error()
		if strings.Contains(text, "secret") || strings.Contains(text, "SIGNED") || len(text) > 600 ||
			strings.ContainsAny(text, "\x1b\u202e\n") {
			t.Errorf("%s: %q", repository, text)
		}
	}
}

func TestRedirectsEnd(t *testing.T) {
	requests := 0
	host := fake(t, func(w http.ResponseWriter, r *http.Request) {
		requests++
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	})
	_, err := manifestOf(t, NewClient(Config{}), host+"/x:1", Auth{})
	if err == nil || requests > maxRedirects {
		t.Errorf("error %v after %d requests", err, requests)
	}
}

// What proves who this node is, such as a client certificate, goes to the origin of hosts.toml alone.
func TestAnotherOriginIsSpokenToAsAStranger(t *testing.T) {
	list, err := endpoints(t.TempDir(), "example.org")
	if err != nil {
		t.Fatal(err)
	}

	e := list[0]
	e.client, e.foreign = newHTTPClient(nil), newHTTPClient(nil)
	for address, same := range map[string]bool{
		"https://example.org:443/v2": true,
		"https://EXAMPLE.org/":       true,
		"http://example.org/":        false,
		"https://example.org:8443/":  false,
		"https://cdn.example.org/":   false,
	} {
		to, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.elsewhere(to).client == e.client; got != same {
			t.Errorf("%s is spoken to as the endpoint itself: %t, want %t", address, got, same)
		}
	}
}

// tokens is a registry whose token server is as the handler does it.
func tokens(t *testing.T, grant http.HandlerFunc) (host string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			grant(w, r)
		case r.Header.Get("Authorization") == "Bearer T":
			fmt.Fprint(w, "{}")
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})

	server.Start()
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestTokenServerThatKnowsOnlyPost(t *testing.T) {
	for _, refusal := range []int{http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed} {
		host := tokens(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				w.WriteHeader(refusal)
				return
			}

			wanted := map[string]string{
				"grant_type": "password",
				"username":   "me",
				"password":   "secret",
				"service":    "s",
				"scope":      "repository:x:pull",
				"client_id":  "trivet",
			}

			for name, value := range wanted {
				if r.FormValue(name) == value {
					continue
				}

				w.WriteHeader(http.StatusUnauthorized)
				return
			}

			fmt.Fprint(w, `{"access_token":"T","expires_in":60}`)
		})

		c := NewClient(Config{})
		if _, err := manifestOf(t, c, host+"/x:1", Auth{Username: "me", Password: "secret"}); err != nil {
			t.Errorf("GET answers %d: %v", refusal, err)
		}
		if _, err := manifestOf(t, c, host+"/x:1", Auth{Username: "me", Password: "wrong"}); err == nil {
			t.Errorf("GET answers %d: a wrong password was accepted", refusal)
		}
	}
}

func TestIdentityTokenIsExchanged(t *testing.T) {
	host := tokens(t, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("grant_type") != "refresh_token" || r.FormValue("refresh_token") != "R" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"access_token":"T"}`)
	})
	if _, err := manifestOf(t, NewClient(Config{}), host+"/x:1", Auth{IdentityToken: "R"}); err != nil {
		t.Error(err)
	}
}

func TestTokenRequestWithCredentialsIsNotRedirected(t *testing.T) {
	leaked := ""
	thief := fake(t, func(w http.ResponseWriter, r *http.Request) {
		leaked += r.Header.Get("Authorization") + r.FormValue("refresh_token")
		fmt.Fprint(w, `{"token":"T"}`)
	})

	host := tokens(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+thief+"/", http.StatusPermanentRedirect)
	})
	for _, auth := range []Auth{{IdentityToken: "R"}, {Username: "me", Password: "secret"}} {
		_, _ = manifestOf(t, NewClient(Config{}), host+"/x:1", auth)
	}

	if leaked != "" {
		t.Errorf("another host got %q", leaked)
	}
}
