package registry

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An attacker between us and a registry must not get at credentials by naming a token server without TLS
// (CVE-2019-10214).
func TestCredentialsGoToNoTokenServerWithoutTLS(t *testing.T) {
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s came with %q", r.Method, r.URL, r.Header.Get("Authorization"))
		fmt.Fprint(w, `{"token":"t"}`)
	}))
	defer tokens.Close()

	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s"`, tokens.URL))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()

	dir := writeHosts(t, "secure.example", "server = \""+s.URL+"\"\nca = \"ca.pem\"\n")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "secure.example", "ca.pem"), certificate, 0o644); err != nil {
		t.Fatal(err)
	}

	for _, auth := range []Auth{{Username: "me", Password: "secret"}, {IdentityToken: "secret"}} {
		_, err := manifestOf(t, NewClient(Config{HostsDir: dir}), "secure.example/x:1", auth)
		text := fmt.Sprint(err)
		if !strings.Contains(text, "not https") || strings.Contains(text, "secret") {
			t.Errorf("error %v, want one that says why", err)
		}
	}
}
