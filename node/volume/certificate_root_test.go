package volume_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/podcertificate"
	"github.com/trivet-node/trivet/node/volume"
)

// signer signs each request at once.
type signer struct {
	t     *testing.T
	key   *ecdsa.PrivateKey
	made  chan *certificatesv1.PodCertificateRequest
	asked int
}

func (s *signer) Account(context.Context, string, string) (types.UID, error) { return "account", nil }

func (s *signer) Create(_ context.Context, r *certificatesv1.PodCertificateRequest) error {
	s.asked++
	proof, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request)
	if err != nil {
		return err
	}

	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, proof.PublicKey, s.key)
	if err != nil {
		return err
	}

	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	r.Status = certificatesv1.PodCertificateRequestStatus{
		Conditions:       []metav1.Condition{{Type: "Issued", Status: metav1.ConditionTrue}},
		CertificateChain: string(chain),
		BeginRefreshAt:   new(metav1.NewTime(time.Now().Add(40 * time.Minute))),
	}
	s.made <- r
	return nil
}

func (s *signer) Get(context.Context, string, string) (*certificatesv1.PodCertificateRequest, error) {
	return nil, absent("podcertificaterequests", "")
}

func (s *signer) Watch(ctx context.Context, seen, _ func(*certificatesv1.PodCertificateRequest)) {
	for {
		select {
		case r := <-s.made:
			seen(r)
		case <-ctx.Done():
			return
		}
	}
}

func (s *signer) Pod(_ *v1.Pod, _, _, reason, message string) { s.t.Errorf("event %s: %s", reason, message) }

// newKeeper runs what has the signer issue certificates until the test ends: one life of the agent.
func newKeeper(t *testing.T, s *signer) *podcertificate.Keeper {
	k := podcertificate.New(podcertificate.Config{
		API:     s,
		Node:    func() *v1.Node { return &v1.Node{} },
		Events:  s,
		Changed: func(types.UID) {},
		Log:     slog.New(slog.DiscardHandler),
	})

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return k
}

func TestCertificatesAreInMemoryAndOutliveTheAgent(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	s := &signer{t: t, key: key, made: make(chan *certificatesv1.PodCertificateRequest, 1)}
	m, root := newMounter(t, &api{certificates: newKeeper(t, s)})

	p := pod(projected("tls", v1.VolumeProjection{PodCertificate: &v1.PodCertificateProjection{
		SignerName:           "example.com/signer",
		KeyType:              "ED25519",
		KeyPath:              "key.pem",
		CertificateChainPath: "chain.pem",
	}}))
	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: new(int64(1234))}

	began := time.Now()
	got := setup(t, m, p)
	if wait := got.SetUpAgain.Sub(began); wait < 40*time.Minute || wait > 46*time.Minute {
		t.Errorf("renewed after %v", wait)
	}

	// Each file is the pod's alone.
	dir := got.ByName["tls"].Path
	keyFile, chainFile := filepath.Join(dir, "key.pem"), filepath.Join(dir, "chain.pem")
	for _, file := range []string{keyFile, chainFile} {
		var on unix.Statfs_t
		must(t, unix.Statfs(file, &on))
		mode, uid, gid := stat(t, file)
		if on.Type != unix.TMPFS_MAGIC || mode.Perm() != 0o640 || uid != 0 || gid != 1234 {
			t.Errorf("%s: file system %x, %v of %d:%d", file, on.Type, mode, uid, gid)
		}
	}

	first, err := tls.LoadX509KeyPair(chainFile, keyFile)
	must(t, err)

	// The next agent shows the same and knows when it is to be renewed.
	next := volume.New(volume.Config{Root: root, Certificates: newKeeper(t, s)})
	again := setup(t, next, p)
	second, err := tls.LoadX509KeyPair(chainFile, keyFile)
	must(t, err)
	if s.asked != 1 || string(first.Certificate[0]) != string(second.Certificate[0]) {
		t.Errorf("%d requests, or another certificate", s.asked)
	}
	if !again.SetUpAgain.Equal(got.SetUpAgain) {
		t.Errorf("renewed at %v, want %v", again.SetUpAgain, got.SetUpAgain)
	}

	must(t, next.Teardown(t.Context(), p.UID))
	if _, err := os.Lstat(filepath.Join(root, "pods", string(p.UID))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}
