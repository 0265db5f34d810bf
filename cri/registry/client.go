package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Config is how registries are reached.
type Config struct {
	HostsDir  string // directory of <host>/hosts.toml; "" or missing: every registry directly
	UserAgent string // "" is trivet-cri

	// ProgressTimeout is after how long a transfer is broken off, and tried again, that moves less than
	// 64 KiB; 0: one minute.
	ProgressTimeout time.Duration
}

// Client reads from registries. It keeps connections, nothing else.
type Client struct {
	config Config
	plain  *http.Client
	retry  func(attempt int) time.Duration // how long to wait before the next try
	tries  int
}

// NewClient connects to nothing yet.
func NewClient(config Config) *Client {
	if config.ProgressTimeout <= 0 {
		config.ProgressTimeout = time.Minute
	}
	if config.UserAgent == "" {
		config.UserAgent = "trivet-cri"
	}
	c := &Client{config: config, tries: 5}
	c.retry = func(attempt int) time.Duration { return min(100*time.Millisecond<<attempt, 5*time.Second) }
	c.plain = newHTTPClient(nil)
	return c
}

// newHTTPClient follows no redirects: send does, and knows what may go along.
func newHTTPClient(config *tls.Config) *http.Client {
	return &http.Client{
		Transport:     transport(config),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func transport(config *tls.Config) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = config

	// blobs are verified as they were pushed
	t.DisableCompression = true
	t.MaxIdleConnsPerHost = 8
	t.IdleConnTimeout = 20 * time.Second
	t.ReadBufferSize = 256 << 10
	t.ResponseHeaderTimeout = 30 * time.Second
	t.MaxResponseHeaderBytes = 256 << 10
	return t
}

// session is one pull: its reference, credentials, endpoints, and the tokens got so far.
type session struct {
	client    *Client
	ref       Reference
	auth      Auth
	endpoints []endpoint

	mu     sync.Mutex // guards tokens
	tokens map[string]string
}

// Repository is one image's place in its registry, with the credentials of one pull. Its methods may be
// called concurrently.
type Repository struct{ session }

// Open prepares a pull of ref.
func (c *Client) Open(ref Reference, auth Auth) (*Repository, error) {
	list, err := endpoints(c.config.HostsDir, ref.Host)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", ref.Host, err)
	}

	for i := range list {
		list[i].client, list[i].foreign = c.plain, c.plain
		if list[i].tls == nil {
			continue
		}

		// Certificates of its own, so connections of its own, for the length of this pull.
		list[i].client = newHTTPClient(list[i].tls)
		list[i].foreign = list[i].client
		if len(list[i].tls.Certificates) > 0 {
			others := list[i].tls.Clone()
			others.Certificates = nil
			list[i].foreign = newHTTPClient(others)
		}
	}

	return &Repository{session{
		client:    c,
		ref:       ref,
		auth:      auth,
		endpoints: list,
		tokens:    make(map[string]string),
	}}, nil
}

// Manifest is a verified manifest or index.
type Manifest struct {
	MediaType string
	Digest    digest.Digest
	Content   []byte
}

const (
	maxManifest     = 8 << 20
	acceptManifests = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
		"application/vnd.docker.distribution.manifest.list.v2+json, " +
		"application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1"
)

// Manifest reads what the reference names.
func (r *Repository) Manifest(ctx context.Context) (Manifest, error) {
	return r.manifest(ctx, r.ref.identifier(), r.ref.Digest)
}

// ManifestByDigest reads another manifest of the same repository: the one an index points to.
func (r *Repository) ManifestByDigest(ctx context.Context, d digest.Digest) (Manifest, error) {
	return r.manifest(ctx, d.String(), d)
}

func (r *Repository) manifest(ctx context.Context, identifier string, want digest.Digest) (Manifest, error) {
	accept := http.Header{"Accept": {acceptManifests}}
	var m Manifest
	err := r.each(ctx, want == "", func(e endpoint) error {
		// A manifest is small: one that has not come whole in this time is stuck.
		ctx, cancel := context.WithTimeoutCause(ctx, r.client.config.ProgressTimeout, errStuck)
		defer cancel()

		response, err := r.get(ctx, e, "/manifests/"+identifier, accept)
		if err != nil {
			return stuck(ctx, err)
		}
		defer response.Body.Close()

		content, err := io.ReadAll(io.LimitReader(response.Body, maxManifest+1))
		if err != nil {
			return stuck(ctx, err)
		}
		if len(content) > maxManifest {
			return fmt.Errorf("manifest is larger than %d bytes", maxManifest)
		}

		got := digest.FromBytes(content)
		if want != "" {
			got = want.Algorithm().FromBytes(content)
		}
		if want != "" && got != want {
			return fmt.Errorf("manifest has digest %s, want %s", got, want)
		}

		mediaType, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
		m = Manifest{MediaType: mediaType, Digest: got, Content: content}
		return nil
	})
	if err != nil {
		return Manifest{}, fmt.Errorf("get manifest of %s: %w", r.ref, err)
	}

	return m, nil
}

// each tries the endpoints in order until one serves; then nobody is asked any more.
func (r *Repository) each(ctx context.Context, byTag bool, try func(endpoint) error) error {
	var errs []error
	for _, e := range r.endpoints {
		if byTag && !e.resolve || !byTag && !e.pull {
			continue
		}

		err := r.retrying(ctx, func() error { return try(e) })
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		errs = append(errs, fmt.Errorf("%s: %w", e.base.Host, err))
	}

	if len(errs) == 0 {
		return errors.New("hosts.toml leaves no host that may be asked")
	}

	return errors.Join(errs...)
}

// retrying repeats what may succeed later: broken connections, 429 and 5xx.
func (r *Repository) retrying(ctx context.Context, try func() error) (err error) {
	for attempt := range r.client.tries {
		if err = try(); err == nil || !passing(err) {
			return err
		}
		if attempt == r.client.tries-1 {
			break
		}
		if err := wait(ctx, r.client.retry(attempt)); err != nil {
			return err
		}
	}

	return err
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// statusError is an answer other than success.
type statusError struct {
	status  int
	message string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.status, http.StatusText(e.status), e.message)
}

// ErrNotFound is a manifest or blob that no host has; ErrDenied one that the given credentials do not open.
var (
	ErrNotFound = errors.New("not found")
	ErrDenied   = errors.New("access denied")
)

// Is lets callers ask for ErrNotFound and ErrDenied.
func (e *statusError) Is(target error) bool {
	switch e.status {
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == ErrDenied
	}
	return false
}

// get asks once, and once more when the endpoint wants authentication.
func (s *session) get(
	ctx context.Context,
	e endpoint,
	path string,
	header http.Header,
) (*http.Response, error) {
	address := e.base
	address.Path += "/" + s.ref.Repository + path
	if e.mirror {
		address.RawQuery = "ns=" + s.ref.Host
	}

	key := address.Scheme + "://" + address.Host
	for second := false; ; second = true {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
		if err != nil {
			return nil, err
		}

		for _, h := range []http.Header{e.header, header} {
			for key, values := range h {
				request.Header[key] = values
			}
		}

		request.Header.Set("User-Agent", s.client.config.UserAgent)
		if token := s.storedToken(key); token != "" {
			request.Header.Set("Authorization", token)
		}

		a, err := e.send(request)
		if err != nil {
			return nil, err
		}
		if a.StatusCode == http.StatusOK || a.StatusCode == http.StatusPartialContent {
			return a.Response, nil
		}

		challenges := a.Header.Values("WWW-Authenticate")
		refusal := a.refusal()
		if a.StatusCode != http.StatusUnauthorized || a.foreign || second || len(challenges) == 0 {
			return nil, refusal
		}

		token, err := s.authorize(ctx, e, challenges)
		if err != nil {
			_, status := errors.AsType[*statusError](err)
			_, connection := errors.AsType[*connectionError](err)
			if status || connection {
				return nil, err
			}

			return nil, &statusError{a.StatusCode, err.Error()}
		}

		s.mu.Lock()
		s.tokens[key] = token
		s.mu.Unlock()
	}
}

func (s *session) storedToken(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[key]
}

// connectionError is a request that got no answer, or not all of it.
type connectionError struct{ err error }

func (e *connectionError) Error() string { return e.err.Error() }
func (e *connectionError) Unwrap() error { return e.err }

// passing reports whether an error may go away by itself. A refused connection or an unknown name rarely does
// within a pull, and a mirror that is down must not hold up the next one: those are not repeated.
func passing(err error) bool {
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.status == http.StatusTooManyRequests || s.status >= 500
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || isReset(err)
}
