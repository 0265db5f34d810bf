package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/trivet-node/trivet/internal/retry"
)

// Config is how registries are reached.
type Config struct {
	// HostsDir is the directory of <host>/hosts.toml. If it is "" or missing, every registry is reached
	// directly.
	HostsDir string

	// UserAgent is sent with each request; "" means trivet-cri.
	UserAgent string

	// ProgressTimeout is after how long a transfer that moves less than 64 KiB is cancelled and tried again;
	// 0 means one minute.
	ProgressTimeout time.Duration

	// Received is told how many bytes of a blob have come, by many goroutines at a time. It may be nil.
	Received func(bytes int64)
}

// Client reads from registries. It keeps connections and nothing else. Its methods may be called
// concurrently.
type Client struct {
	cfg      Config
	plain    *http.Client
	pause    func(attempt int) time.Duration // before the next attempt
	attempts int
}

// NewClient returns a Client, which connects to a registry when it is asked for something.
func NewClient(cfg Config) *Client {
	if cfg.ProgressTimeout <= 0 {
		cfg.ProgressTimeout = time.Minute
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "trivet-cri"
	}

	if cfg.Received == nil {
		cfg.Received = func(int64) {}
	}

	return &Client{
		cfg:   cfg,
		plain: newHTTPClient(nil),
		pause: func(attempt int) time.Duration {
			return min(
				100*time.Millisecond<<attempt,
				5*time.Second,
			)
		},
		attempts: 5,
	}
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

	// Blobs are verified in the form in which they were pushed.
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

	// mu guards tokens.
	mu     sync.Mutex
	tokens map[string]string
}

// Repository is one image's place in its registry, with the credentials of one pull. Its methods may be
// called concurrently.
type Repository struct{ session }

// Open prepares a pull of ref.
func (c *Client) Open(ref Reference, auth Auth) (*Repository, error) {
	list, err := endpoints(c.cfg.HostsDir, ref.Host)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", ref.Host, err)
	}

	for i := range list {
		list[i].connectBy(c.plain)
	}

	return &Repository{session{
		client:    c,
		ref:       ref,
		auth:      auth,
		endpoints: list,
		tokens:    make(map[string]string),
	}}, nil
}

// connectBy chooses the endpoint's HTTP clients: the plain one, unless it has certificates of its own. Then
// it has connections of its own as well, for the length of one pull.
func (e *endpoint) connectBy(plain *http.Client) {
	e.client = plain
	e.foreign = plain
	if e.tls == nil {
		return
	}

	e.client = newHTTPClient(e.tls)
	e.foreign = e.client
	if len(e.tls.Certificates) > 0 {
		withoutCertificates := e.tls.Clone()
		withoutCertificates.Certificates = nil
		e.foreign = newHTTPClient(withoutCertificates)
	}
}

// Manifest is a verified manifest or index.
type Manifest struct {
	MediaType string
	Digest    digest.Digest
	Content   []byte
}

const (
	maxManifest     = 8 << 20
	acceptManifests = "application/vnd.oci.image.index.v1+json, " +
		"application/vnd.oci.image.manifest.v1+json, " +
		"application/vnd.docker.distribution.manifest.list.v2+json, " +
		"application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1"
)

// Manifest returns what the reference names.
func (r *Repository) Manifest(ctx context.Context) (Manifest, error) {
	return r.manifest(ctx, r.ref.identifier(), r.ref.Digest)
}

// ManifestByDigest returns another manifest of the same repository: one that an index names.
func (r *Repository) ManifestByDigest(ctx context.Context, d digest.Digest) (Manifest, error) {
	return r.manifest(ctx, d.String(), d)
}

func (r *Repository) manifest(ctx context.Context, identifier string, want digest.Digest) (Manifest, error) {
	accept := http.Header{"Accept": {acceptManifests}}
	var m Manifest
	err := r.each(ctx, want == "", func(e endpoint) error {
		// A manifest is small: one that has not come completely in this time is stuck.
		ctx, cancel := context.WithTimeoutCause(ctx, r.client.cfg.ProgressTimeout, errStuck)
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

// each calls try with the endpoints in order until one serves. byTag says that a tag is asked for, which not
// every endpoint may resolve.
func (r *Repository) each(ctx context.Context, byTag bool, try func(endpoint) error) error {
	var errs []error
	for _, e := range r.endpoints {
		if byTag && !e.resolve || !byTag && !e.pull {
			continue
		}

		err := r.repeat(ctx, func() error { return try(e) })
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}

		errs = append(errs, fmt.Errorf("%s: %w", e.base.Host, err))
	}

	if len(errs) == 0 {
		return errNoHost
	}

	return errors.Join(errs...)
}

var errNoHost = errors.New("hosts.toml leaves no host that may be asked")

// repeat repeats what may succeed later: broken connections, 429 and 5xx.
func (r *Repository) repeat(ctx context.Context, try func() error) (err error) {
	for attempt := range r.client.attempts {
		if attempt > 0 {
			if err := retry.Sleep(ctx, r.client.pause(attempt-1)); err != nil {
				return err
			}
		}
		if err = try(); err == nil || !isTemporary(err) {
			return err
		}
	}
	return err
}

// statusError is an answer other than success.
type statusError struct {
	status  int
	message string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.status, http.StatusText(e.status), e.message)
}

var (
	// ErrNotFound is matched by the error for a manifest or blob that no host has.
	ErrNotFound = errors.New("not found")

	// ErrDenied is matched by the error for one that the given credentials do not give access to.
	ErrDenied = errors.New("access denied")
)

// Is reports whether target is ErrNotFound or ErrDenied, and the status means that.
func (e *statusError) Is(target error) bool {
	switch e.status {
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == ErrDenied
	}
	return false
}

// get sends a request, and sends it again with a token if the endpoint wants authentication.
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

	a, err := s.ask(ctx, e, address, header)
	if err != nil {
		return nil, err
	}
	if a.isContent() {
		return a.Response, nil
	}

	// A foreign server's challenge is not answered: it could ask for the credentials of another.
	challenges := a.Header.Values("WWW-Authenticate")
	refusal := a.refusal()
	if a.StatusCode != http.StatusUnauthorized || a.foreign || len(challenges) == 0 {
		return nil, refusal
	}

	if err := s.authenticate(ctx, e, address, challenges); err != nil {
		return nil, err
	}

	a, err = s.ask(ctx, e, address, header)
	if err != nil {
		return nil, err
	}
	if !a.isContent() {
		return nil, a.refusal()
	}

	return a.Response, nil
}

// ask sends a request with the token of its origin, if there is one by now.
func (s *session) ask(ctx context.Context, e endpoint, address url.URL, header http.Header) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return answer{}, err
	}

	maps.Copy(request.Header, e.header)
	maps.Copy(request.Header, header)
	request.Header.Set("User-Agent", s.client.cfg.UserAgent)

	s.mu.Lock()
	token := s.tokens[originOf(address)]
	s.mu.Unlock()
	if token != "" {
		request.Header.Set("Authorization", token)
	}

	return e.send(request)
}

// authenticate gets a token for the origin of an address. An error that does not come from a server says that
// access is denied.
func (s *session) authenticate(ctx context.Context, e endpoint, address url.URL, challenges []string) error {
	token, err := s.authorize(ctx, e, challenges)
	if err != nil {
		_, status := errors.AsType[*statusError](err)
		_, connection := errors.AsType[*connectionError](err)
		if status || connection {
			return err
		}

		return &statusError{http.StatusUnauthorized, err.Error()}
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	s.tokens[originOf(address)] = token
	return nil
}

func originOf(address url.URL) string { return address.Scheme + "://" + address.Host }

// connectionError is a request that got no answer, or not all of it.
type connectionError struct{ err error }

func (e *connectionError) Error() string { return e.err.Error() }
func (e *connectionError) Unwrap() error { return e.err }

// isTemporary reports whether an error may go away by itself. A refused connection or an unknown name rarely
// does within a pull, and a mirror that is down must not hold up the next one: those are not repeated.
func isTemporary(err error) bool {
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.status == http.StatusTooManyRequests || s.status >= 500
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || isReset(err)
}
