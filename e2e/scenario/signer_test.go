package scenario

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
)

// signer answers the PodCertificateRequests of the signers DOMAIN/issue, DOMAIN/short, DOMAIN/deny and
// DOMAIN/fail; those of others, such as DOMAIN/silent, when release was called.
type signer struct {
	t        *testing.T
	domain   string
	key      *ecdsa.PrivateKey
	requests kube.Objects[certificatesv1.PodCertificateRequest]

	// mu guards released.
	mu       sync.Mutex
	released map[string]bool
}

// signs runs a signer in the test's own process until the test ends.
func (c *cluster) signs() *signer {
	c.t.Helper()
	config, err := kube.Load(filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		c.t.Fatal(err)
	}
	client, err := kube.New(config)
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}

	s := &signer{
		t:        c.t,
		domain:   c.namespace + ".example.com",
		key:      key,
		released: map[string]bool{},
		requests: kube.Of[certificatesv1.PodCertificateRequest, certificatesv1.PodCertificateRequestList](
			client, certificatesv1.SchemeGroupVersion, "podcertificaterequests"),
	}

	ctx, cancel := context.WithCancel(context.WithoutCancel(c.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		kube.NewWatch(s.requests, kube.WatchConfig[certificatesv1.PodCertificateRequest]{
			Changed: func(_, now *certificatesv1.PodCertificateRequest) { s.see(ctx, now) },
		}).Run(ctx)
	}()

	c.t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

// see answers a request that has no answer.
func (s *signer) see(ctx context.Context, r *certificatesv1.PodCertificateRequest) {
	if r == nil || len(r.Status.Conditions) > 0 || !strings.HasPrefix(r.Spec.SignerName, s.domain+"/") {
		return
	}

	status, err := s.answer(r)
	if err != nil || status == nil {
		if err != nil {
			s.t.Errorf("request %s/%s: %v", r.Namespace, r.Name, err)
		}
		return
	}

	patch, err := json.Marshal(map[string]any{"status": status})
	if err == nil {
		_, err = s.requests.Patch(ctx, r.Namespace, r.Name, types.MergePatchType, patch, "status")
	}
	if err != nil && ctx.Err() == nil {
		s.t.Errorf("answer to request %s/%s: %v", r.Namespace, r.Name, err)
	}
}

// answer is the status that a request gets, nil for none.
func (s *signer) answer(
	r *certificatesv1.PodCertificateRequest,
) (*certificatesv1.PodCertificateRequestStatus, error) {
	kind := strings.TrimPrefix(r.Spec.SignerName, s.domain+"/")
	s.mu.Lock()
	released := s.released[kind]
	s.mu.Unlock()

	// The API server allows no certificate to be renewed earlier: ten minutes after it became valid, which
	// is at most five minutes ago.
	now := time.Now().Truncate(time.Second)
	switch {
	case kind == "deny":
		return concluded("Denied", "UnsupportedKeyType", "use another type"), nil
	case kind == "fail":
		return concluded("Failed", "Broken", "no luck today"), nil
	case kind == "short":
		return s.issued(r, now.Add(-4*time.Minute-30*time.Second), 10*time.Minute)
	case kind == "issue" || released:
		return s.issued(r, now, 40*time.Minute)
	}
	return nil, nil
}

// concluded is a status with a last condition.
func concluded(kind, why, message string) *certificatesv1.PodCertificateRequestStatus {
	return &certificatesv1.PodCertificateRequestStatus{Conditions: []metav1.Condition{{
		Type:               kind,
		Status:             metav1.ConditionTrue,
		Reason:             why,
		Message:            message,
		LastTransitionTime: metav1.Now(),
	}}}
}

// issued is a certificate of an hour for the key of a request, to be renewed so long after its begin.
func (s *signer) issued(
	r *certificatesv1.PodCertificateRequest, begin time.Time, refresh time.Duration,
) (*certificatesv1.PodCertificateRequestStatus, error) {
	proof, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		return nil, err
	}
	if len(proof.Subject.Names) > 0 {
		return nil, errors.New("the stub is not empty")
	}

	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}

	template := &x509.Certificate{
		SerialNumber: serial,
		DNSNames:     []string{r.Spec.PodName + ".example.com"},
		NotBefore:    begin,
		NotAfter:     begin.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, proof.PublicKey, s.key)
	if err != nil {
		return nil, err
	}

	status := concluded("Issued", "Signed", "")
	status.CertificateChain = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	status.NotBefore = new(metav1.NewTime(template.NotBefore))
	status.NotAfter = new(metav1.NewTime(template.NotAfter))
	status.BeginRefreshAt = new(metav1.NewTime(begin.Add(refresh)))
	return status, nil
}

// release answers the requests of a signer that was silent.
func (s *signer) release(ctx context.Context, kind string) {
	s.mu.Lock()
	s.released[kind] = true
	s.mu.Unlock()

	all, _, err := s.requests.List(ctx, "", metav1.ListOptions{})
	if err != nil {
		s.t.Error(err)
	}
	for _, r := range all {
		s.see(ctx, r)
	}
}
