package streaming

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"sync"
	"time"
)

// The library refuses all requests while 1,000 of its URLs are unopened, and a URL lives for a minute. So one
// container or pod has only a few of them, and before they are used up the oldest becomes invalid: a client
// that wanted it would have opened it long ago.
const (
	tokenLife     = time.Minute
	maxTokens     = 900
	maxTokensEach = 64
)

// ErrTooManyStreams is a container or pod of which too many URLs were not opened.
var ErrTooManyStreams = errors.New("too many streams asked for and not opened")

// tokens holds requests until their stream is opened, by the last part of the URL. The library has the same
// cache, but no way to look into it.
type tokens struct {
	mu       sync.Mutex // guards requests
	requests map[string]tokenRequest
}

type tokenRequest struct {
	// owner is the container or pod.
	owner   string
	url     string
	request any
	expires time.Time
}

// issue gets a URL from the library and remembers what it is for.
func (s *Server) issue(owner string, request any, get func() (string, error)) error {
	t := &s.tokens
	t.mu.Lock()
	defer t.mu.Unlock()

	now := time.Now()
	count := t.expire(now, owner)
	if count >= maxTokensEach {
		return fmt.Errorf("%s: %w (%d; each waits for %v)", owner, ErrTooManyStreams, count, tokenLife)
	}

	for len(t.requests) >= maxTokens {
		oldest := t.oldest()
		s.invalidate(t.requests[oldest].url)
		delete(t.requests, oldest)
	}

	at, err := get()
	if err != nil {
		return err
	}
	if t.requests == nil {
		t.requests = map[string]tokenRequest{}
	}

	t.requests[path.Base(at)] = tokenRequest{
		owner:   owner,
		url:     at,
		request: request,
		expires: now.Add(tokenLife),
	}

	return nil
}

// expire removes the requests that have expired, and returns how many others owner has.
func (t *tokens) expire(now time.Time, owner string) (count int) {
	for token, r := range t.requests {
		switch {
		case now.After(r.expires):
			delete(t.requests, token)
		case r.owner == owner:
			count++
		}
	}
	return count
}

// oldest returns the token that expires first.
func (t *tokens) oldest() (token string) {
	for candidate, r := range t.requests {
		if token == "" || r.expires.Before(t.requests[token].expires) {
			token = candidate
		}
	}
	return token
}

// take removes the request of a token and returns it; nil if there is none.
func (t *tokens) take(token string) any {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.requests[token]
	delete(t.requests, token)
	if !ok || time.Now().After(r.expires) {
		return nil
	}
	return r.request
}

// invalidate makes the library forget the token of a URL: a request that does not ask for an upgrade takes it
// and is refused.
func (s *Server) invalidate(at string) {
	parsed, err := url.Parse(at)
	if err != nil {
		return
	}
	request := &http.Request{
		Method: http.MethodGet,
		URL:    parsed,
		Header: http.Header{},
	}
	s.stream.ServeHTTP(discard{header: http.Header{}}, request)
}

// discard is a response that nobody reads.
type discard struct{ header http.Header }

// Header returns a header that is not sent.
func (d discard) Header() http.Header { return d.header }

// Write drops p.
func (d discard) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader does nothing.
func (d discard) WriteHeader(int) {}
