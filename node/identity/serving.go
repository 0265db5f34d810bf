package identity

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"sync/atomic"
	"time"
)

// ServingConfig says where the certificate of the agent's API comes from: from files that an administrator
// gives, from the cluster's signer (serverTLSBootstrap), or it is self-signed, as kubelet's.
type ServingConfig struct {
	CertFile string // given files; they are read again when they change
	KeyFile  string

	// Bootstrap asks the cluster's signer. Until it answers, a self-signed certificate serves.
	Bootstrap bool

	CertDir string // where the signer's certificates are kept

	Request Request // the names and addresses of the node
	Log     *slog.Logger

	// RenewalFailed is called for each renewal that has failed, and Rotated with the age of each certificate
	// that was replaced. They may be nil.
	RenewalFailed func()
	Rotated       func(age time.Duration)
}

func (c ServingConfig) store() Store { return Store{Dir: c.CertDir, Name: "kubelet-server"} }

// Serving is the certificate of the agent's API.
type Serving struct {
	cfg     ServingConfig
	current atomic.Pointer[tls.Certificate]
	loaded  atomic.Int64 // modification time of CertFile
}

// NewServing returns a certificate to serve with, or why there is none.
func NewServing(cfg ServingConfig) (*Serving, error) {
	s := &Serving{cfg: cfg}
	s.cfg.Request.Serving = true
	if cfg.CertFile != "" {
		return s, s.reload()
	}

	if cfg.Bootstrap {
		pair, err := cfg.store().Load()
		if err == nil && time.Now().Before(pair.Leaf.NotAfter) {
			s.current.Store(pair)
			return s, nil
		}

		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			cfg.Log.Warn("serving certificate is replaced", "err", err)
		}
	}

	return s, s.selfSign()
}

// selfSign makes a certificate of the agent's own, for a year. A new one is made at each start.
func (s *Serving) selfSign() error {
	key, keyPEM, err := newKey()
	if err != nil {
		return err
	}

	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("self-signed certificate: %w", err)
	}

	now := time.Now()
	request := s.cfg.Request
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s@%d", request.NodeName, now.Unix())},
		NotBefore:             now.Add(-5 * time.Minute),
		NotAfter:              now.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              append([]string{request.NodeName}, request.DNSNames...),
		IPAddresses:           request.IPs,
	}

	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("self-signed certificate: %w", err)
	}

	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pair, err := parsePair("self-signed", certPEM, keyPEM)
	if err != nil {
		return err
	}

	s.current.Store(pair)
	return nil
}

// Certificate returns the certificate in use, for tls.Config.GetCertificate.
func (s *Serving) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.cfg.CertFile != "" {
		if err := s.reload(); err != nil && s.current.Load() == nil {
			return nil, err
		}
	}
	if pair := s.current.Load(); pair != nil {
		return pair, nil
	}
	return nil, errors.New("no serving certificate yet")
}

// Ends returns when the certificate in use ends.
func (s *Serving) Ends() time.Time {
	if pair := s.current.Load(); pair != nil && pair.Leaf != nil {
		return pair.Leaf.NotAfter
	}
	return time.Time{}
}

// reload reads the given files if they have changed. Files that cannot be read leave the certificate in use.
func (s *Serving) reload() error {
	info, err := os.Stat(s.cfg.CertFile)
	if err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}

	stamp := info.ModTime().UnixNano()
	if stamp == s.loaded.Load() {
		return nil
	}

	cert, err := os.ReadFile(s.cfg.CertFile)
	if err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}

	key, err := os.ReadFile(s.cfg.KeyFile)
	if err != nil {
		return fmt.Errorf("serving key: %w", err)
	}

	pair, err := parsePair(s.cfg.CertFile, cert, key)
	if err != nil {
		return err
	}

	s.current.Store(pair)
	s.loaded.Store(stamp)
	return nil
}

// Run gets the certificate from the cluster's signer and renews it until ctx ends. Without Bootstrap it
// returns at once.
func (s *Serving) Run(ctx context.Context, requests Requests) error {
	if !s.cfg.Bootstrap || s.cfg.CertFile != "" {
		return nil
	}

	keep := renewal{
		store:   s.cfg.store(),
		request: s.cfg.Request,
		sign:    requests,
		renewed: s.current.Store,
		failed:  s.cfg.RenewalFailed,
		rotated: s.cfg.Rotated,
		log:     s.cfg.Log,
	}

	keep.run(ctx)
	return nil
}
