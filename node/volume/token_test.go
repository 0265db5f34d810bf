package volume

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
)

// issuer gives tokens of an hour, unless it is away.
type issuer struct {
	away   error
	issued int
}

func (i *issuer) Token(
	context.Context,
	string,
	string,
	authenticationv1.TokenRequestSpec,
) (*authenticationv1.TokenRequest, error) {
	if i.away != nil {
		return nil, i.away
	}
	i.issued++
	return &authenticationv1.TokenRequest{
		Status: authenticationv1.TokenRequestStatus{
			Token:               fmt.Sprint("token", i.issued),
			ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour)),
		},
	}, nil
}

func TestATokenThatCannotBeRenewedIsGoodUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		m := New(Config{Tokens: i, Log: slog.New(slog.DiscardHandler)})
		pod, key := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}, tokenKey{pod: "u", seconds: 3600}
		want := func(after time.Duration, value string, err error) {
			t.Helper()
			time.Sleep(after)
			got, e := m.token(t.Context(), pod, key)
			if got.value != value || !errors.Is(e, err) {
				t.Errorf("token %q, error %v; want %q, %v", got.value, e, value, err)
			}
		}

		want(0, "token1", nil)
		want(47*time.Minute, "token1", nil)
		i.away = errors.New("nobody is there")
		want(2*time.Minute, "token1", nil)
		if wait := time.Until(m.tokens.refreshAt("u")); wait <= 0 || wait > revisitAfter {
			t.Errorf("asked for again in %s", wait)
		}

		want(10*time.Minute, "token1", nil)
		want(2*time.Minute, "", i.away)
		i.away = nil
		want(time.Second, "token2", nil)
	})
}
