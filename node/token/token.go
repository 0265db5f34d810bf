// Package token keeps the service account tokens that the agent asks for on behalf of pods, and renews them
// in time. They are in memory only: an agent that starts again asks for new ones.
package token

import (
	"context"
	"log/slog"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/podspec"
)

// Issuer issues tokens of service accounts.
type Issuer interface {
	Token(
		ctx context.Context,
		namespace, serviceAccount string,
		spec authenticationv1.TokenRequestSpec,
	) (*authenticationv1.TokenRequest, error)
}

// Request describes a token of a pod.
type Request struct {
	// Audience is whom the token is meant for; empty for the API server.
	Audience string

	// Seconds is how long the token is to be valid. The API server may choose another time.
	Seconds int64
}

// maxAge is the age at which a token is renewed at the latest, as kubelet does: it limits how long a stolen
// one is of use.
const maxAge = 24 * time.Hour

// retryAfter is how long a token that could not be renewed is left alone.
const retryAfter = time.Minute

// Cache holds the tokens of the pods of a node.
type Cache struct {
	issuer Issuer
	log    *slog.Logger

	// mu guards tokens.
	mu     sync.Mutex
	tokens map[key]token
}

type key struct {
	pod types.UID
	Request
}

type token struct {
	value   string
	renewAt time.Time
	expires time.Time
}

// NewCache returns an empty cache.
func NewCache(issuer Issuer, log *slog.Logger) *Cache {
	return &Cache{
		issuer: issuer,
		log:    log,
		tokens: map[key]token{},
	}
}

// Get returns a token that is bound to the pod: the one of an earlier call or, when that is due for renewal,
// a new one. A token that cannot be renewed is returned until it expires.
func (c *Cache) Get(ctx context.Context, pod *v1.Pod, request Request) (string, error) {
	k := key{pod.UID, request}
	kept, now := c.kept(k), time.Now()
	if now.Before(kept.renewAt) {
		return kept.value, nil
	}

	fresh, err := c.request(ctx, pod, request)
	switch {
	case err == nil:
		kept = fresh
	case !now.Before(kept.expires):
		return "", err
	default:
		c.log.Warn("token is not renewed yet",
			"pod", pod.Namespace+"/"+pod.Name, "expires", kept.expires, "err", err)
		kept.renewAt = now.Add(retryAfter)
	}

	c.keep(k, kept)
	return kept.value, nil
}

// RenewAt returns when the first of the pod's tokens is due for renewal, zero if it has none.
func (c *Cache) RenewAt(pod types.UID) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()

	var first time.Time
	for k, t := range c.tokens {
		if k.pod == pod && (first.IsZero() || t.renewAt.Before(first)) {
			first = t.renewAt
		}
	}
	return first
}

// Forget drops the tokens of a pod that is gone.
func (c *Cache) Forget(pod types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()

	for k := range c.tokens {
		if k.pod == pod {
			delete(c.tokens, k)
		}
	}
}

func (c *Cache) kept(k key) token {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens[k]
}

func (c *Cache) keep(k key, t token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[k] = t
}

// request asks the issuer for a token that is valid only as long as the pod exists.
func (c *Cache) request(ctx context.Context, pod *v1.Pod, request Request) (token, error) {
	spec := authenticationv1.TokenRequestSpec{
		ExpirationSeconds: new(request.Seconds),
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1",
			Kind:       "Pod",
			Name:       pod.Name,
			UID:        pod.UID,
		},
	}
	if request.Audience != "" {
		spec.Audiences = []string{request.Audience}
	}

	issued := time.Now()
	answer, err := c.issuer.Token(ctx, pod.Namespace, podspec.ServiceAccount(pod), spec)
	if err != nil {
		return token{}, err
	}

	expires := answer.Status.ExpirationTimestamp.Time
	return token{
		value:   answer.Status.Token,
		renewAt: renewal(issued, expires),
		expires: expires,
	}, nil
}

// renewal is at 80 % of a token's life, as kubelet has it, and never later than maxAge.
func renewal(issued, expires time.Time) time.Time {
	at := issued.Add(expires.Sub(issued) * 8 / 10)
	if latest := issued.Add(maxAge); at.After(latest) {
		return latest
	}
	return at
}
