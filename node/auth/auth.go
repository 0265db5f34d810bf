// Package auth decides who may call the node's HTTPS endpoint: a client certificate signed by the cluster's
// CA or a bearer token that the API server vouches for (TokenReview) says who it is, and the API server
// (SubjectAccessReview on nodes/SUBRESOURCE) whether it may. Answers are kept for a while. Everything that is
// not clearly allowed is refused.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// User is the user who makes a request.
type User struct {
	Name, UID string
	Groups    []string
	Extra     map[string][]string
}

// anonymous is the user of a call without credentials.
var anonymous = User{Name: "system:anonymous", Groups: []string{"system:unauthenticated"}}

// Reviews asks the API server: review.Reviews.
type Reviews interface {
	Token(ctx context.Context, token string) (authenticationv1.TokenReviewStatus, error)
	Access(
		ctx context.Context,
		spec authorizationv1.SubjectAccessReviewSpec,
	) (authorizationv1.SubjectAccessReviewStatus, error)
}

// Config says how callers are judged. The zero value admits nobody.
type Config struct {
	NodeName     string
	ClientCAFile string // PEM; read again when it changes. Empty: no client certificates
	Anonymous    bool   // let calls without credentials through to authorization
	TokenReview  bool   // accept bearer tokens
	// authorization mode AlwaysAllow: everyone who is authenticated may do everything
	AlwaysAllow bool
	TokenTTL    time.Duration // how long an answer is kept; 0: 2 min
	AllowTTL    time.Duration // 0: 5 min
	DenyTTL     time.Duration // 0: 30 s
	Reviews     Reviews
	Now         func() time.Time // nil: time.Now
	Log         *slog.Logger     // nil: none
}

// Guard judges requests.
type Guard struct {
	cfg    Config
	tokens cache[User]
	access cache[decision]

	mu       sync.Mutex
	pool     *x509.CertPool
	poolTime time.Time
}

type decision struct {
	allowed bool
	reason  string
}

// New returns a guard. It reads the client CA at the first call that needs it.
func New(cfg Config) *Guard {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}

	return &Guard{cfg: cfg}
}

// Wrap passes to next only those requests that are allowed. The answers to others are kubelet's: 401, 403
// with the user and the subresource, 500 when the API server could not be asked.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := g.authenticate(r)
		if err != nil {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}

		// What is authorised must be what is served.
		if !clean(r.URL) {
			http.NotFound(w, r)
			return
		}

		// One of the subresources suffices.
		subresources, verb := attributes(r)
		for _, sub := range subresources {
			d, err := g.authorize(r.Context(), user, verb, sub)
			if err != nil {
				g.cfg.Log.Warn("a call could not be authorized", "user", user.Name, "verb", verb,
					"subresource", sub, "err", err)
				http.Error(
					w,
					fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource=%s)",
						user.Name, verb, sub),
					http.StatusInternalServerError,
				)

				return
			}

			if d.allowed {
				next.ServeHTTP(w, r)
				return
			}
		}

		http.Error(
			w,
			fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)",
				user.Name, verb, subresources),
			http.StatusForbidden,
		)
	})
}

var errUnauthenticated = errors.New("no valid credentials")

// authenticate returns the user that makes the request. Wrong credentials are not the same as none.
func (g *Guard) authenticate(r *http.Request) (User, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && g.cfg.ClientCAFile != "" {
		user, err := g.certificate(r.TLS.PeerCertificates)
		if err == nil {
			return user, nil
		}
		if r.Header.Get("Authorization") == "" {
			return User{}, err
		}
	}

	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, ok := strings.Cut(header, " ")
		token = strings.TrimSpace(token)
		if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || !g.cfg.TokenReview {
			return User{}, errUnauthenticated
		}

		return g.token(r.Context(), token)
	}

	if g.cfg.Anonymous {
		return anonymous, nil
	}

	return User{}, errUnauthenticated
}

// certificate verifies a chain for client use now. The user is the common name, its groups the organizations.
func (g *Guard) certificate(chain []*x509.Certificate) (User, error) {
	roots, err := g.clientCAs()
	if err != nil {
		return User{}, err
	}

	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}

	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   g.cfg.Now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return User{}, fmt.Errorf("client certificate: %w", err)
	}
	if chain[0].Subject.CommonName == "" {
		return User{}, errors.New("client certificate: it has no common name")
	}

	groups := append([]string{}, chain[0].Subject.Organization...)
	return User{Name: chain[0].Subject.CommonName, Groups: append(groups, "system:authenticated")}, nil
}

// clientCAs reads the CA file, again when it has changed.
func (g *Guard) clientCAs() (*x509.CertPool, error) {
	info, err := os.Stat(g.cfg.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}

	g.mu.Lock()
	defer g.mu.Unlock()

	if g.pool != nil && info.ModTime().Equal(g.poolTime) {
		return g.pool, nil
	}

	data, err := os.ReadFile(g.cfg.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("client CA: %w", err)
	}

	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("client CA %s: no certificate in it", g.cfg.ClientCAFile)
	}

	g.pool, g.poolTime = pool, info.ModTime()
	return pool, nil
}

func (g *Guard) token(ctx context.Context, token string) (User, error) {
	now := g.cfg.Now()

	// the token itself is not kept
	key := sha256.Sum256([]byte(token))
	if user, ok := g.tokens.get(key, now); ok {
		return user, nil
	}

	answer, err := g.cfg.Reviews.Token(ctx, token)
	if err != nil {
		return User{}, err
	}
	if !answer.Authenticated || answer.User.Username == "" {
		return User{}, errUnauthenticated
	}

	user := User{
		Name:   answer.User.Username,
		UID:    answer.User.UID,
		Groups: answer.User.Groups,
		Extra:  map[string][]string{},
	}

	for k, v := range answer.User.Extra {
		user.Extra[k] = v
	}

	g.tokens.put(key, user, now.Add(g.cfg.TokenTTL), now)
	return user, nil
}

func (g *Guard) authorize(ctx context.Context, user User, verb, subresource string) (decision, error) {
	if g.cfg.AlwaysAllow {
		return decision{allowed: true}, nil
	}

	spec := authorizationv1.SubjectAccessReviewSpec{
		User:   user.Name,
		UID:    user.UID,
		Groups: user.Groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb:        verb,
			Version:     "v1",
			Resource:    "nodes",
			Subresource: subresource,
			Name:        g.cfg.NodeName,
		},
	}
	if len(user.Extra) > 0 {
		spec.Extra = map[string]authorizationv1.ExtraValue{}
		for k, v := range user.Extra {
			spec.Extra[k] = v
		}
	}

	// A decision counts for a while, so that a busy client does not cost a review with each request.
	now := g.cfg.Now()
	key := sha256.Sum256([]byte(spec.String()))
	if d, ok := g.access.get(key, now); ok {
		return d, nil
	}

	answer, err := g.cfg.Reviews.Access(ctx, spec)
	if err != nil {
		return decision{}, err
	}

	d := decision{allowed: answer.Allowed && !answer.Denied, reason: answer.Reason}
	ttl := g.cfg.DenyTTL
	if d.allowed {
		ttl = g.cfg.AllowTTL
	}

	g.access.put(key, d, now.Add(ttl), now)
	return d, nil
}
