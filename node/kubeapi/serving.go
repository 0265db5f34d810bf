package kubeapi

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
	"net"
	"os"
	"sync/atomic"
	"time"
)

// Serving is the certificate of the node's HTTPS endpoint. It comes from files that an administrator gives,
// from the cluster's signer (serverTLSBootstrap), or is self-signed, as kubelet's.
type Serving struct {
	CertFile, KeyFile string // given files; read again when they change
	CertDir           string
	Bootstrap         bool // ask the cluster's signer; until it answers, a self-signed one serves
	Request           Request
	Client            *Client // for Bootstrap
	Log               *slog.Logger

	current atomic.Pointer[tls.Certificate]
	loaded  atomic.Int64 // modification time of CertFile
}

func (s *Serving) store() Store { return Store{Dir: s.CertDir, Name: "kubelet-server"} }

// Start makes sure that there is a certificate to serve with.
func (s *Serving) Start() error {
	if s.CertFile != "" {
		return s.reload()
	}

	if s.Bootstrap {
		pair, err := s.store().Load()
		if err == nil && time.Now().Before(pair.Leaf.NotAfter) {
			s.current.Store(pair)
			return nil
		}

		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.Log.Warn("serving certificate is replaced", "err", err)
		}
	}

	return s.selfSign()
}

// selfSign serves with a certificate of our own, for a year; a new one is made at each start.
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
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s@%d", s.Request.NodeName, now.Unix())},
		NotBefore:             now.Add(-5 * time.Minute),
		NotAfter:              now.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              append([]string{s.Request.NodeName}, s.Request.DNSNames...),
		IPAddresses:           s.Request.IPs,
	}

	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("self-signed certificate: %w", err)
	}

	pair, err := parsePair("self-signed",
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM)
	if err != nil {
		return err
	}

	s.current.Store(pair)
	return nil
}

// Certificate is for tls.Config.GetCertificate.
func (s *Serving) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.CertFile != "" {
		if err := s.reload(); err != nil && s.current.Load() == nil {
			return nil, err
		}
	}
	if pair := s.current.Load(); pair != nil {
		return pair, nil
	}
	return nil, errors.New("no serving certificate yet")
}

// reload reads the given files if they have changed. Files that cannot be read leave the certificate in
// force.
func (s *Serving) reload() error {
	info, err := os.Stat(s.CertFile)
	if err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}

	stamp := info.ModTime().UnixNano()
	if stamp == s.loaded.Load() {
		return nil
	}

	cert, err := os.ReadFile(s.CertFile)
	if err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}

	key, err := os.ReadFile(s.KeyFile)
	if err != nil {
		return fmt.Errorf("serving key: %w", err)
	}

	pair, err := parsePair(s.CertFile, cert, key)
	if err != nil {
		return err
	}

	s.current.Store(pair)
	s.loaded.Store(stamp)
	return nil
}

// Run gets and renews the certificate from the cluster's signer until ctx ends; without Bootstrap there is
// nothing to do.
func (s *Serving) Run(ctx context.Context) error {
	if !s.Bootstrap || s.CertFile != "" {
		return nil
	}

	for ctx.Err() == nil {
		next := time.Now().Add(time.Minute)
		pair, err := s.store().Load()
		if err != nil || !time.Now().Before(RenewAt(pair.Leaf)) {
			pair, err = s.sign(ctx)
		}

		switch {
		case err == nil:
			s.current.Store(pair)
			next = RenewAt(pair.Leaf)
		case ctx.Err() == nil:
			s.Log.Warn("no serving certificate from the cluster", "node", s.Request.NodeName, "err", err)
		}

		if sleepUntil(ctx, next) != nil {
			return nil
		}
	}

	return nil
}

func (s *Serving) sign(ctx context.Context) (*tls.Certificate, error) {
	if len(s.Request.IPs) == 0 && len(s.Request.DNSNames) == 0 {
		return nil, errors.New("the node has no address or name to put into a serving certificate")
	}

	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()

	request := s.Request
	request.Serving = true
	cert, key, err := s.Client.Sign(ctx, request)
	if err != nil {
		return nil, err
	}

	return s.store().Put(cert, key, time.Now())
}

// Address adds an IP if text is one, else a name, to the request.
func (r *Request) Address(text string) {
	if ip := net.ParseIP(text); ip != nil {
		r.IPs = append(r.IPs, ip)
	} else if text != "" {
		r.DNSNames = append(r.DNSNames, text)
	}
}
