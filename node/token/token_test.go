package token_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/token"
)

// issuer issues tokens, unless it is away, and keeps what it was asked for.
type issuer struct {
	away   error
	life   time.Duration
	issued int

	account string
	spec    authenticationv1.TokenRequestSpec
}

func (i *issuer) Token(
	_ context.Context,
	namespace, account string,
	spec authenticationv1.TokenRequestSpec,
) (*authenticationv1.TokenRequest, error) {
	if i.away != nil {
		return nil, i.away
	}

	i.issued++
	i.account, i.spec = namespace+"/"+account, spec
	return &authenticationv1.TokenRequest{
		Status: authenticationv1.TokenRequestStatus{
			Token:               fmt.Sprint("token", i.issued),
			ExpirationTimestamp: metav1.NewTime(time.Now().Add(i.life)),
		},
	}, nil
}

func newCache(life time.Duration) (*token.Cache, *issuer) {
	i := &issuer{life: life}
	return token.NewCache(i, slog.New(slog.DiscardHandler)), i
}

func pod(uid string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: types.UID(uid)}}
}

func TestTokenThatCannotBeRenewedIsGoodUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, i := newCache(time.Hour)
		p := pod("1")
		want := func(after time.Duration, value string, err error) {
			t.Helper()
			time.Sleep(after)
			got, e := cache.Get(t.Context(), p, token.Request{Seconds: 3600})
			if got != value || !errors.Is(e, err) {
				t.Errorf("token %q, error %v; want %q, %v", got, e, value, err)
			}
		}

		want(0, "token1", nil)
		want(47*time.Minute, "token1", nil)

		i.away = errors.New("nobody is there")
		want(2*time.Minute, "token1", nil)
		if wait := time.Until(cache.RenewAt(p.UID)); wait != time.Minute {
			t.Errorf("the next attempt is in %s, want 1m", wait)
		}

		want(10*time.Minute, "token1", nil)
		want(2*time.Minute, "", i.away)

		i.away = nil
		want(time.Second, "token2", nil)
	})
}

func TestTokenOfManyDaysIsRenewedEveryDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, _ := newCache(30 * 24 * time.Hour)
		p := pod("1")
		if _, err := cache.Get(t.Context(), p, token.Request{Seconds: 30 * 86400}); err != nil {
			t.Fatal(err)
		}
		if wait := time.Until(cache.RenewAt(p.UID)); wait != 24*time.Hour {
			t.Errorf("it is renewed in %s, want 24h", wait)
		}
	})
}

func TestRequestNamesPodAccountAndAudience(t *testing.T) {
	cache, i := newCache(time.Hour)
	p := pod("1")
	if _, err := cache.Get(t.Context(), p, token.Request{Audience: "vault", Seconds: 600}); err != nil {
		t.Fatal(err)
	}

	if i.account != "ns/default" {
		t.Errorf("account %s, want ns/default", i.account)
	}

	if len(i.spec.Audiences) != 1 || i.spec.Audiences[0] != "vault" || *i.spec.ExpirationSeconds != 600 {
		t.Errorf("audiences %v for %d s, want [vault] for 600 s",
			i.spec.Audiences, *i.spec.ExpirationSeconds)
	}

	if bound := i.spec.BoundObjectRef; bound == nil || bound.Kind != "Pod" || bound.UID != p.UID {
		t.Errorf("bound to %+v, want the pod", bound)
	}
}

func TestTokensOfAPodAreForgottenWithIt(t *testing.T) {
	cache, i := newCache(time.Hour)
	first, second := pod("1"), pod("2")
	for _, p := range []*v1.Pod{first, second} {
		if _, err := cache.Get(t.Context(), p, token.Request{Seconds: 600}); err != nil {
			t.Fatal(err)
		}
	}

	cache.Forget(first.UID)
	if !cache.RenewAt(first.UID).IsZero() || cache.RenewAt(second.UID).IsZero() {
		t.Error("want the tokens of the first pod gone and those of the second kept")
	}
	if _, err := cache.Get(t.Context(), second, token.Request{Seconds: 600}); err != nil || i.issued != 2 {
		t.Errorf("%d tokens were issued, want 2 (%v)", i.issued, err)
	}
}
