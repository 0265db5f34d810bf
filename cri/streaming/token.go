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

// The library refuses everybody when 1,000 of its URLs are unopened, and a URL lives for a minute. So
// nobody may have many of them for one container or pod, and before they are used up the oldest is given
// up: who still wants it would have opened it long ago.
const (
	tokenLife     = time.Minute
	maxTokens     = 900
	maxTokensEach = 64
)

// ErrTooManyStreams says that too many URLs of one container or pod have not been opened.
var ErrTooManyStreams = errors.New("too many streams asked for and not opened")

// tokens remembers requests until their stream is opened, by the last part of the URL. The library has the
// same cache, but does not let others look into it.
type tokens struct {
	mu       sync.Mutex // guards requests
	requests map[string]tokenRequest
}

type tokenRequest struct {
	owner   string // container or pod
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
		s.useUp(t.requests[oldest].url)
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

// expire drops those whose time is over and counts the others of owner.
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

func (t *tokens) oldest() (token string) {
	for candidate, r := range t.requests {
		if token == "" || r.expires.Before(t.requests[token].expires) {
			token = candidate
		}
	}
	return token
}

// take gives a request away; nil if there is none.
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

// useUp makes the library forget the token of a URL: a request that does not ask for an upgrade takes it
// and is refused.
func (s *Server) useUp(at string) {
	parsed, err := url.Parse(at)
	if err != nil {
		return
	}
	s.stream.ServeHTTP(&nowhere{}, &http.Request{Method: http.MethodGet, URL: parsed, Header: http.Header{}})
}

// nowhere is a response that nobody reads.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header {
	if n.header == nil {
		n.header = http.Header{}
	}
	return n.header
}
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) WriteHeader(int)             {}
