package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/trivet-node/trivet/node/auth"
)

// cluster answers reviews: tokens map to users, allowed holds "user verb subresource".
type cluster struct {
	tokens  map[string]string
	allowed map[string]bool
	asked   int
	down    bool
}

func (c *cluster) Token(_ context.Context, token string) (authenticationv1.TokenReviewStatus, error) {
	c.asked++
	if c.down {
		return authenticationv1.TokenReviewStatus{}, errors.New("down")
	}
	user, ok := c.tokens[token]
	return authenticationv1.TokenReviewStatus{
		Authenticated: ok,
		User:          authenticationv1.UserInfo{Username: user},
	}, nil
}

func (c *cluster) Access(
	_ context.Context,
	s authorizationv1.SubjectAccessReviewSpec,
) (authorizationv1.SubjectAccessReviewStatus, error) {
	c.asked++
	if c.down {
		return authorizationv1.SubjectAccessReviewStatus{}, errors.New("down")
	}
	a := s.ResourceAttributes
	if a.Resource != "nodes" || a.Name != "n" {
		return authorizationv1.SubjectAccessReviewStatus{}, errors.New("wrong question")
	}
	return authorizationv1.SubjectAccessReviewStatus{
		Allowed: c.allowed[s.User+" "+a.Verb+" "+a.Subresource],
	}, nil
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "ca"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}

	a.cert = sign(t, template, template, &a.key.PublicKey, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func sign(
	t *testing.T,
	template, parent *x509.Certificate,
	public any,
	key *ecdsa.PrivateKey,
) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert
}

func (a *authority) issue(
	t *testing.T,
	name string,
	ends time.Time,
	usage x509.ExtKeyUsage,
) *x509.Certificate {
	t.Helper()
	return sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     ends,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
	}, a.cert, &newKey(t).PublicKey, a.key)
}

func (a *authority) write(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.crt")
	must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600))
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func call(g *auth.Guard, method, path, token string, cert *x509.Certificate) int {
	r := httptest.NewRequest(method, path, nil)
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	if cert != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	}

	w := httptest.NewRecorder()
	g.Wrap(http.HandlerFunc(func(
		w http.ResponseWriter,
		_ *http.Request,
	) {
		w.WriteHeader(http.StatusOK)
	})).ServeHTTP(w, r)

	return w.Code
}

func TestWhoMayCall(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	later := time.Now().Add(time.Hour)
	good := ca.issue(t, "apiserver", later, x509.ExtKeyUsageClientAuth)
	api := &cluster{tokens: map[string]string{"t1": "metrics", "t2": "reader"}, allowed: map[string]bool{
		"apiserver create proxy": true,
		"apiserver get proxy":    true,
		"apiserver get stats":    true,
		"metrics get metrics":    true,
		"reader get proxy":       true,
	}}

	g := auth.New(auth.Config{
		NodeName:     "n",
		ClientCAFile: ca.write(t),
		TokenReview:  true,
		Reviews:      api,
	})

	for _, c := range []struct {
		name, method, path, token string
		cert                      *x509.Certificate
		want                      int
	}{
		{"anonymous", "GET", "/pods", "", nil, 401},
		{"certificate", "GET", "/containerLogs/a/b/c", "", good, 200},
		{"exec", "POST", "/exec/a/b/c", "", good, 200},
		{"stats", "GET", "/stats/summary", "", good, 200},
		{"metrics are not stats", "GET", "/metrics", "", good, 403},
		{"wrong CA", "GET", "/pods", "", other.issue(t, "apiserver", later, x509.ExtKeyUsageClientAuth), 401},
		{
			"ended", "GET", "/pods", "",
			ca.issue(t, "apiserver", time.Now().Add(-time.Minute), x509.ExtKeyUsageClientAuth), 401,
		},
		{
			"server certificate", "GET", "/pods", "",
			ca.issue(t, "apiserver", later, x509.ExtKeyUsageServerAuth), 401,
		},
		{"no name", "GET", "/pods", "", ca.issue(t, "", later, x509.ExtKeyUsageClientAuth), 401},
		{"token", "GET", "/metrics/resource", "Bearer t1", nil, 200},
		{"token of little right", "GET", "/pods", "Bearer t1", nil, 403},
		{"pods by proxy right", "GET", "/pods", "Bearer t2", nil, 200},
		{"reading rights do not run commands", "GET", "/exec/a/b/c", "Bearer t2", nil, 403},
		{"unclean path", "GET", "/metrics/../exec/a/b/c", "Bearer t1", nil, 404},
		{"encoded slash", "GET", "/exec/a/b/c%2F..%2F..%2F..%2F..%2Fmetrics", "Bearer t1", nil, 404},
		{"prefix is not a path", "GET", "/metricsx", "Bearer t1", nil, 403},
		{"unknown token", "GET", "/pods", "Bearer zz", nil, 401},
		{"basic", "GET", "/pods", "Basic dDE6", nil, 401},
		{"empty token", "GET", "/pods", "Bearer ", nil, 401},
		{
			"wrong certificate with a good token", "GET", "/pods", "Bearer t2",
			other.issue(t, "x", later, x509.ExtKeyUsageClientAuth), 200,
		},
		{"strange method", "TRACE", "/pods", "Bearer t2", nil, 403},
	} {
		if got := call(g, c.method, c.path, c.token, c.cert); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestEndpointsHaveSubresourcesOfTheirOwn(t *testing.T) {
	api := &cluster{
		tokens: map[string]string{
			"statusz":    "s",
			"configz":    "c",
			"log":        "l",
			"checkpoint": "k",
			"proxy":      "p",
		},
		allowed: map[string]bool{
			"s get statusz":       true,
			"c get configz":       true,
			"l get log":           true,
			"k create checkpoint": true,
			"p get proxy":         true,
		},
	}

	g := auth.New(auth.Config{NodeName: "n", TokenReview: true, Reviews: api})
	for _, c := range []struct{ method, path, right string }{
		{"GET", "/statusz", "statusz"},
		{"GET", "/flagz", "configz"},
		{"GET", "/configz", "configz"},
		{"GET", "/logs/", "log"},
		{"GET", "/logs/pods/x", "log"},
		{"POST", "/checkpoint/ns/p/c", "checkpoint"},
	} {
		if got := call(g, c.method, c.path, "Bearer "+c.right, nil); got != 200 {
			t.Errorf("%s with the right to %s: %d", c.path, c.right, got)
		}
		if got := call(g, c.method, c.path, "Bearer proxy", nil); c.path != "/configz" && got != 403 {
			t.Errorf("%s with the right to proxy: %d", c.path, got)
		}
	}
}

func TestAnswersAreKeptForAWhile(t *testing.T) {
	now := time.Now()
	api := &cluster{tokens: map[string]string{"t": "u"}, allowed: map[string]bool{"u get metrics": true}}
	g := auth.New(auth.Config{
		NodeName:    "n",
		TokenReview: true,
		TokenTTL:    2 * time.Minute,
		AllowTTL:    5 * time.Minute,
		DenyTTL:     30 * time.Second,
		Reviews:     api,
		Now:         func() time.Time { return now },
	})

	for range 3 {
		if got := call(g, "GET", "/metrics", "Bearer t", nil); got != 200 {
			t.Fatal(got)
		}
	}

	if api.asked != 2 {
		t.Errorf("the API server was asked %d times, want 2", api.asked)
	}

	api.down = true
	if got := call(g, "GET", "/metrics", "Bearer t", nil); got != 200 {
		t.Errorf("known caller while the API server is down: %d", got)
	}

	now = now.Add(10 * time.Minute)
	if got := call(g, "GET", "/metrics", "Bearer t", nil); got != 401 {
		t.Errorf("after the answers have ended: %d", got)
	}
}

func TestARefusalIsForgottenSoonerThanAPermission(t *testing.T) {
	now := time.Now()
	api := &cluster{tokens: map[string]string{"t": "u"}, allowed: map[string]bool{}}
	g := auth.New(auth.Config{
		NodeName:    "n",
		TokenReview: true,
		TokenTTL:    time.Hour,
		AllowTTL:    time.Hour,
		DenyTTL:     30 * time.Second,
		Reviews:     api,
		Now:         func() time.Time { return now },
	})

	for _, c := range []struct {
		after   time.Duration
		allowed bool
		want    int
	}{
		{0, false, 403},
		{29 * time.Second, true, 403},
		{2 * time.Second, true, 200},
		{time.Minute, false, 200},
	} {
		now = now.Add(c.after)
		api.allowed["u get metrics"] = c.allowed
		if got := call(g, "GET", "/metrics", "Bearer t", nil); got != c.want {
			t.Errorf("after %v, allowed %v: %d, want %d", c.after, c.allowed, got, c.want)
		}
	}
}

func TestAnonymousNeedsAuthorizationToo(t *testing.T) {
	api := &cluster{allowed: map[string]bool{"system:anonymous get healthz": true}}
	g := auth.New(auth.Config{NodeName: "n", Anonymous: true, Reviews: api})
	if got := call(g, "GET", "/healthz", "", nil); got != 200 {
		t.Errorf("healthz: %d", got)
	}
	if got := call(g, "GET", "/pods", "", nil); got != 403 {
		t.Errorf("pods: %d", got)
	}
}
