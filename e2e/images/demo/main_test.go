package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// server is the demo's on a volume that was prepared as often as a pod was given it.
func server(t *testing.T, starts int) *httptest.Server {
	t.Helper()
	data := t.TempDir()
	for range starts {
		if err := prepare(slog.New(slog.DiscardHandler), data); err != nil {
			t.Fatal(err)
		}
	}

	s := httptest.NewServer(handler(slog.New(slog.DiscardHandler), data))
	t.Cleanup(s.Close)
	return s
}

// ask sends a request and returns the status and the body.
func ask(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}

	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()

	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}

	return response.StatusCode, string(data)
}

func TestValuesAreReadAsTheyWereWritten(t *testing.T) {
	s := server(t, 1)
	if status, _ := ask(t, http.MethodGet, s.URL+"/kv/a", ""); status != http.StatusNotFound {
		t.Errorf("before: status %d", status)
	}

	for _, value := range []string{"one", "two"} {
		if status, _ := ask(t, http.MethodPut, s.URL+"/kv/a", value); status != http.StatusCreated {
			t.Errorf("put: status %d", status)
		}
		if status, got := ask(t, http.MethodGet, s.URL+"/kv/a", ""); status != http.StatusOK || got != value {
			t.Errorf("get: %d %q, want %q", status, got, value)
		}
	}
}

func TestKeysThatLeadElsewhereAndLargeValuesAreRefused(t *testing.T) {
	s := server(t, 1)
	if status, _ := ask(t, http.MethodPut, s.URL+"/kv/..%2Fstarts", "x"); status != http.StatusBadRequest {
		t.Errorf("key with a slash: status %d", status)
	}

	large := strings.Repeat("x", maxValue+1)
	if status, _ := ask(t, http.MethodPut, s.URL+"/kv/large", large); status == http.StatusCreated {
		t.Error("a value over the limit is stored")
	}
	if status, _ := ask(t, http.MethodGet, s.URL+"/kv/large", ""); status != http.StatusNotFound {
		t.Errorf("what is left of it: status %d", status)
	}
}

func TestInfoCountsHowOftenTheVolumeWasGivenToAPod(t *testing.T) {
	s := server(t, 3)
	if _, got := ask(t, http.MethodGet, s.URL+"/info", ""); !strings.Contains(got, `"starts":"3"`) {
		t.Errorf("info %s", got)
	}
}

func TestClientWritesAndReadsBack(t *testing.T) {
	s := server(t, 1)
	if err := client(t.Context(), slog.New(slog.DiscardHandler), s.URL, 3); err != nil {
		t.Error(err)
	}
	if _, got := ask(t, http.MethodGet, s.URL+"/info", ""); !strings.Contains(got, `"keys":3`) {
		t.Errorf("info %s", got)
	}
}

func TestIngressPassesOnWhatItHasARuleFor(t *testing.T) {
	behind := server(t, 1)
	h, err := ingress("smoke.example", behind.URL)
	if err != nil {
		t.Fatal(err)
	}

	front := httptest.NewServer(h)
	defer front.Close()
	for host, want := range map[string]int{
		"smoke.example":      http.StatusOK,
		"smoke.example:8080": http.StatusOK,
		"other.example":      http.StatusNotFound,
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL+"/info", nil)
		if err != nil {
			t.Fatal(err)
		}

		request.Host = host
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != want {
			t.Errorf("%s: status %d, want %d", host, answer.StatusCode, want)
		}
	}
}
