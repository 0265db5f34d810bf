package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// hasty returns a client that tries again at once when nothing has come for that long.
func hasty(patience time.Duration) *Client {
	c := NewClient(Config{ProgressTimeout: patience})
	c.pause = func(int) time.Duration { return time.Millisecond }
	return c
}

func TestStuckTransferIsBrokenOffAndGoesOn(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 50_000)
	requests := 0
	host := fake(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(content[:1000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}

		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})

	ref, err := ParseReference(host + "/x:1")
	if err != nil {
		t.Fatal(err)
	}

	// A busy machine may break off a transfer that goes on, too: then there are more requests.
	c := hasty(50 * time.Millisecond)
	c.attempts = 100
	r, err := c.Open(ref, Auth{})
	if err != nil {
		t.Fatal(err)
	}

	b, err := r.Blob(t.Context(), digest.FromBytes(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()

	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, content) || requests < 2 {
		t.Errorf("%d bytes, %v, %d requests", len(got), err, requests)
	}
}

func TestTransferThatTricklesIsGivenUp(t *testing.T) {
	const size = 1 << 20
	host := fake(t, func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()

		for r.Context().Err() == nil {
			w.Write([]byte{0})
			w.(http.Flusher).Flush()
			<-tick.C
		}
	})

	ref, err := ParseReference(host + "/x:1")
	if err != nil {
		t.Fatal(err)
	}

	r, err := hasty(50*time.Millisecond).Open(ref, Auth{})
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	// On a busy machine, answers may be cancelled before their first byte, too.
	b, err := r.Blob(ctx, digest.FromString("x"), size)
	if err == nil {
		defer b.Close()

		_, err = io.ReadAll(b)
	}
	if !errors.Is(err, errStuck) {
		t.Errorf("got %v", err)
	}
}

func TestDeadlineIsReportedAsSuch(t *testing.T) {
	host := fake(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ref, err := ParseReference(host + "/x:1")
	if err != nil {
		t.Fatal(err)
	}

	r, err := NewClient(Config{}).Open(ref, Auth{})
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()

	if _, err := r.Manifest(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// Both are asked for again: a manifest and a token that stop coming, and a token server that breaks the
// connection.
func TestManifestAndTokenThatStopComingAreAskedForAgain(t *testing.T) {
	var host string
	manifests, tokens := 0, 0
	host = fake(t, func(w http.ResponseWriter, r *http.Request) {
		half := func() {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, "{")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
		if r.URL.Path == "/token" {
			switch tokens++; tokens {
			case 1:
				half()
			case 2:
				panic(http.ErrAbortHandler)
			}

			fmt.Fprint(w, `{"token":"T"}`)
			return
		}

		if r.Header.Get("Authorization") != "Bearer T" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}

		if manifests++; manifests == 1 {
			half()
			return
		}

		fmt.Fprint(w, "{}")
	})

	// On a busy machine, answers that make progress may be cancelled, too.
	c := hasty(300 * time.Millisecond)
	c.attempts = 20
	if m, err := manifestOf(t, c, host+"/x:1", Auth{}); err != nil || string(m.Content) != "{}" {
		t.Errorf("%+v, %v", m, err)
	}
	if manifests < 2 || tokens < 3 {
		t.Errorf("%d manifests and %d tokens were asked for", manifests, tokens)
	}
}
