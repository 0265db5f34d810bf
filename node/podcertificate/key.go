package podcertificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const keyBlock = "PRIVATE KEY"

// newKey makes a key of one of the API's types, and returns it in PEM as well.
func newKey(kind string) (crypto.Signer, []byte, error) {
	key, err := generate(kind)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key of type %s: %w", kind, err)
	}

	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key of type %s: %w", kind, err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// generate makes a key.
func generate(kind string) (crypto.Signer, error) {
	switch kind {
	case "RSA3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, errors.New("the type is unknown")
}

// prove returns a certificate signing request without content, which proves to the API server who has the
// key.
func prove(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// readKey reads a key that newKey has encoded, at the beginning of data. It returns the rest, too. Errors do
// not show what was read.
func readKey(data []byte) (key crypto.Signer, encoded, rest []byte, err error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != keyBlock {
		return nil, nil, nil, errors.New("there is no private key")
	}

	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, nil, errors.New("the private key is malformed")
	}

	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, nil, nil, errors.New("the private key cannot sign")
	}

	encoded = pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: block.Bytes})
	return key, encoded, rest, nil
}
