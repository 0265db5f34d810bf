// Package pki makes the keys and certificates of a cluster, the way kubeadm lays them out: a cluster CA, a
// front-proxy CA, service account keys, serving certificates, and one client certificate with its kubeconfig
// for each component and node.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const validity = 10 * 365 * 24 * time.Hour

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	PEM  []byte // its certificate
}

// Dir is a directory of keys and certificates: NAME.crt and NAME.key. What exists already is kept, so that a
// cluster that is brought up again keeps its identities.
type Dir string

// Path of a file in the directory.
func (d Dir) Path(file string) string { return filepath.Join(string(d), file) }

// Authority opens the named CA or makes it.
func (d Dir) Authority(name string) (*Authority, error) {
	a, err := d.openAuthority(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}

	template := newTemplate(pkix.Name{CommonName: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	if err := d.sign(name, template, template, key, key); err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}

	return d.openAuthority(name)
}

func (d Dir) openAuthority(name string) (*Authority, error) {
	certPEM, err := os.ReadFile(d.Path(name + ".crt"))
	if err != nil {
		return nil, err
	}

	keyPEM, err := os.ReadFile(d.Path(name + ".key"))
	if err != nil {
		return nil, err
	}

	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("authority %s in %s is not PEM; remove the directory to start again", name, d)
	}

	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", name, err)
	}

	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", name, err)
	}

	return &Authority{cert: cert, key: key, PEM: certPEM}, nil
}

// Client makes a client certificate for the user and its groups.
func (d Dir) Client(a *Authority, name, user string, groups ...string) error {
	t := newTemplate(pkix.Name{CommonName: user, Organization: groups})
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return d.leaf(a, name, t)
}

// Server makes a certificate for serving under the given DNS names and IP addresses; it is good as a client
// certificate, too.
func (d Dir) Server(a *Authority, name, commonName string, hosts ...string) error {
	t := newTemplate(pkix.Name{CommonName: commonName})
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return d.leaf(a, name, t)
}

// ServiceAccountKeys makes the key pair sa.key, sa.pub.
func (d Dir) ServiceAccountKeys() error {
	if _, err := os.Stat(d.Path("sa.pub")); err == nil {
		return nil
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := d.writeKey("sa", key); err != nil {
		return err
	}

	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}

	return writePEM(d.Path("sa.pub"), "PUBLIC KEY", public, 0o644)
}

func (d Dir) leaf(a *Authority, name string, t *x509.Certificate) error {
	if _, err := os.Stat(d.Path(name + ".crt")); err == nil {
		return nil
	}

	t.KeyUsage = x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := d.sign(name, t, a.cert, key, a.key); err != nil {
		return fmt.Errorf("make certificate %s: %w", name, err)
	}

	return nil
}

// sign writes the key first: a certificate that is there always has its key.
func (d Dir) sign(
	name string,
	t, parent *x509.Certificate,
	key *ecdsa.PrivateKey,
	signer crypto.Signer,
) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err != nil {
		return err
	}
	if err := d.writeKey(name, key); err != nil {
		return err
	}
	return writePEM(d.Path(name+".crt"), "CERTIFICATE", der, 0o644)
}

func (d Dir) writeKey(name string, key *ecdsa.PrivateKey) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(d.Path(name+".key"), "EC PRIVATE KEY", der, 0o600)
}

func newTemplate(subject pkix.Name) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		// crypto/rand never fails on Linux
		panic(err)
	}

	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(validity),
	}
}

func writePEM(path, kind string, der []byte, mode fs.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

// Kubeconfig writes a kubeconfig for the client certificate NAME to the file: the cluster is reached at
// server and trusted by the CA certificate. Everything is embedded: the file is good anywhere.
func (d Dir) Kubeconfig(a *Authority, name, server, file string) error {
	cert, err := os.ReadFile(d.Path(name + ".crt"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(d.Path(name + ".key"))
	if err != nil {
		return err
	}
	user := fmt.Sprintf("    client-certificate-data: %s\n    client-key-data: %s\n", b64(cert), b64(key))
	return writeKubeconfig(file, a, server, name, user)
}

// TokenKubeconfig writes a kubeconfig for a bearer token, such as a bootstrap token.
func TokenKubeconfig(a *Authority, name, token, server, file string) error {
	return writeKubeconfig(file, a, server, name, fmt.Sprintf("    token: %q\n", token))
}

func writeKubeconfig(file string, a *Authority, server, name, user string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Config\ncurrent-context: %s@trivet\n", name)
	fmt.Fprintf(
		&b,
		"clusters:\n- name: trivet\n  cluster:\n    server: %s\n    certificate-authority-data: %s\n",
		server,
		b64(a.PEM),
	)

	fmt.Fprintf(
		&b,
		"contexts:\n- name: %s@trivet\n  context:\n    cluster: trivet\n    user: %s\n",
		name,
		name,
	)

	fmt.Fprintf(&b, "users:\n- name: %s\n  user:\n%s", name, user)
	return os.WriteFile(file, []byte(b.String()), 0o600)
}

func b64(data []byte) string { return base64.StdEncoding.EncodeToString(data) }
