package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/internal/durable"
)

// Store keeps one certificate with its key as kubelet does: DIR/NAME-DATE.pem holds both, and
// DIR/NAME-current.pem is a symbolic link to the newest, exchanged in one step.
type Store struct {
	Dir  string // e.g. /var/lib/kubelet/pki
	Name string // kubelet-client or kubelet-server
}

// current is the path of the link to the certificate in use. It serves as certificate and as key file.
func (s Store) current() string { return filepath.Join(s.Dir, s.Name+"-current.pem") }

// Load reads the certificate in use, with its leaf parsed. The error is fs.ErrNotExist when there is none.
func (s Store) Load() (*tls.Certificate, error) {
	data, err := os.ReadFile(s.current())
	if err != nil {
		return nil, err
	}
	return parsePair(s.current(), data, data)
}

// parsePair parses a certificate and its key (PEM); path is for errors.
func parsePair(path string, cert, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", path, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", path, err)
		}
	}
	return &pair, nil
}

// Put makes cert and key (PEM) the certificate in use, durably, and removes the files of earlier ones.
func (s Store) Put(cert, key []byte, now time.Time) (*tls.Certificate, error) {
	pair, err := parsePair(s.Name, cert, key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("certificate directory: %w", err)
	}

	file := fmt.Sprintf("%s-%s.pem", s.Name, now.UTC().Format("2006-01-02-15-04-05.000000"))
	data := append(append(bytes.Clone(bytes.TrimSpace(cert)), '\n'), key...)
	if err := durable.WriteFile(filepath.Join(s.Dir, file), data, 0o600); err != nil {
		return nil, fmt.Errorf("store certificate: %w", err)
	}

	if err := s.link(file); err != nil {
		return nil, err
	}

	return pair, s.prune(file)
}

// link makes the file the one in use.
func (s Store) link(file string) error {
	temporary := s.current() + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link certificate: %w", err)
	}
	if err := os.Symlink(file, temporary); err != nil {
		return fmt.Errorf("link certificate: %w", err)
	}
	if err := os.Rename(temporary, s.current()); err != nil {
		return fmt.Errorf("link certificate: %w", err)
	}
	return durable.SyncDir(s.Dir)
}

// prune removes the files of earlier certificates.
func (s Store) prune(keep string) error {
	old, err := filepath.Glob(filepath.Join(s.Dir, s.Name+"-2*.pem"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if filepath.Base(path) != keep {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// newKey makes an ECDSA P-256 key, as kubelet does, and its PEM form.
func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// renewAt is when a certificate should be replaced: at 80 % of its life, so that there is time to retry.
func renewAt(cert *x509.Certificate) time.Time {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return cert.NotBefore.Add(life * 8 / 10)
}
