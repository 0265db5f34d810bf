package kubeletapi

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// A runtime that refuses to upgrade a connection must not leave it as a tunnel, through which the caller's
// next request would pass unguarded (CVE-2018-1002105), and its redirects are not followed, least of all
// with the caller's credentials (CVE-2020-8559).
func TestRefusedUpgradeIsNoTunnel(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the redirect of a runtime was followed")
	}))
	defer elsewhere.Close()

	for _, code := range []int{http.StatusOK, http.StatusFound, http.StatusBadRequest} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "" {
					t.Error("the caller's credentials reach the runtime")
				}
				if strings.Contains(r.URL.Path, "smuggled") {
					t.Error("a request passes by the guard")
				}

				w.Header().Set("Location", elsewhere.URL)
				w.WriteHeader(code)
			}))
			defer backend.Close()

			var requests atomic.Int32
			s := New(Config{Log: slog.New(slog.DiscardHandler)})
			front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) == 1 {
					s.passThrough(w, r, backend.URL+"/exec/token")
				}
			}))
			defer front.Close()

			address, config := front.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true}
			caller, err := tls.Dial("tcp", address, config)
			if err != nil {
				t.Fatal(err)
			}
			defer caller.Close()

			const upgrade = "POST /exec HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer secret\r\n" +
				"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
			const next = "GET /smuggled HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
			if _, err := io.WriteString(caller, upgrade+next); err != nil {
				t.Fatal(err)
			}

			answers := bufio.NewReader(caller)
			answer, err := http.ReadResponse(answers, nil)
			if err != nil || answer.StatusCode != code {
				t.Fatalf("%v, %v", answer, err)
			}

			// until the second request is answered, or refused
			_, _ = io.Copy(io.Discard, caller)
		})
	}
}
