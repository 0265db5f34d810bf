package volume

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/kubeapi"
)

// TokenIssuer asks the API server for tokens.
type TokenIssuer struct{ Client *kubeapi.Client }

// Token makes a TokenRequest for the service account.
func (t TokenIssuer) Token(
	ctx context.Context,
	namespace, account string,
	spec authenticationv1.TokenRequestSpec,
) (*authenticationv1.TokenRequest, error) {
	out := &authenticationv1.TokenRequest{}
	err := kubeapi.Patient(ctx, func() error {
		return t.Client.Core.Post().Namespace(namespace).Resource("serviceaccounts").Name(account).SubResource("token").
			Body(&authenticationv1.TokenRequest{Spec: spec}).Do(ctx).Into(out)
	})
	if err != nil {
		return nil, fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}
	return out, nil
}

// tokenKey names one token of one pod.
type tokenKey struct {
	pod      types.UID
	audience string
	seconds  int64
}

type token struct {
	value            string
	renewAt, expires time.Time
}

// tokenCache remembers tokens, in memory only: an agent that starts again asks for new ones.
type tokenCache struct {
	mu     sync.Mutex
	tokens map[tokenKey]token
}

// maxTokenAge is when a token is renewed at the latest, as kubelet does: it bounds for how long a stolen one
// is of use.
const maxTokenAge = 24 * time.Hour

// renewToken is at 80 % of a token's life.
func renewToken(issued, expires time.Time) time.Time {
	at := issued.Add(expires.Sub(issued) * 8 / 10)
	if latest := issued.Add(maxTokenAge); at.After(latest) {
		return latest
	}
	return at
}

func (c *tokenCache) get(key tokenKey) token {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens[key]
}

func (c *tokenCache) put(key tokenKey, t token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tokens[key] = t
}

func (c *tokenCache) refreshAt(pod types.UID) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first time.Time
	for key, t := range c.tokens {
		if key.pod == pod && (first.IsZero() || t.renewAt.Before(first)) {
			first = t.renewAt
		}
	}
	return first
}

func (c *tokenCache) forget(pod types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.tokens {
		if key.pod == pod {
			delete(c.tokens, key)
		}
	}
}

// tokenFile is the file of a projected service account token, bound to the pod.
func (m *Manager) tokenFile(
	ctx context.Context,
	pod *v1.Pod,
	volume string,
	src *v1.ServiceAccountTokenProjection,
	mode fs.FileMode,
) (files, error) {
	seconds := int64(3600)
	if src.ExpirationSeconds != nil {
		seconds = *src.ExpirationSeconds
	}
	t, err := m.token(ctx, pod, tokenKey{pod.UID, src.Audience, seconds})
	if err != nil {
		return nil, err
	}
	return files{src.Path: credential(pod, []byte(t.value), mode)}, nil
}

// token is the one at hand or, when that is to be renewed, a new one. One that cannot be renewed is good
// until it expires.
func (m *Manager) token(ctx context.Context, pod *v1.Pod, key tokenKey) (token, error) {
	t, now := m.tokens.get(key), time.Now()
	if now.Before(t.renewAt) {
		return t, nil
	}

	fresh, err := m.requestToken(ctx, pod, key)
	switch {
	case err == nil:
		t = fresh
	case !now.Before(t.expires):
		return token{}, err
	default:
		m.cfg.Log.Warn("token is not renewed yet",
			"pod", pod.Namespace+"/"+pod.Name, "expires", t.expires, "err", err)
		t.renewAt = now.Add(revisitAfter)
	}

	m.tokens.put(key, t)
	return t, nil
}

func (m *Manager) requestToken(ctx context.Context, pod *v1.Pod, key tokenKey) (token, error) {
	spec := authenticationv1.TokenRequestSpec{
		ExpirationSeconds: new(key.seconds),
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1",
			Kind:       "Pod",
			Name:       pod.Name,
			UID:        pod.UID,
		},
	}
	if key.audience != "" {
		spec.Audiences = []string{key.audience}
	}

	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}

	issued := time.Now()
	answer, err := m.cfg.Tokens.Token(ctx, pod.Namespace, account, spec)
	if err != nil {
		return token{}, err
	}

	expires := answer.Status.ExpirationTimestamp.Time
	return token{answer.Status.Token, renewToken(issued, expires), expires}, nil
}

// commonUser is the user that all containers of the pod run as, nil if they differ or the image decides.
func commonUser(pod *v1.Pod) *int64 {
	var podUser, common *int64
	if pod.Spec.SecurityContext != nil {
		podUser = pod.Spec.SecurityContext.RunAsUser
	}

	first := true
	same := func(sc *v1.SecurityContext) bool {
		user := podUser
		if sc != nil && sc.RunAsUser != nil {
			user = sc.RunAsUser
		}
		if user == nil || (!first && *user != *common) {
			return false
		}

		common, first = user, false
		return true
	}

	for _, c := range pod.Spec.InitContainers {
		if !same(c.SecurityContext) {
			return nil
		}
	}

	for _, c := range pod.Spec.Containers {
		if !same(c.SecurityContext) {
			return nil
		}
	}

	for _, c := range pod.Spec.EphemeralContainers {
		if !same(c.SecurityContext) {
			return nil
		}
	}

	return common
}
