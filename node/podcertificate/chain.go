package podcertificate

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// maxChain is the size of the longest chain in bytes, as the API has it.
const maxChain = 100 << 10

const certificateBlock = "CERTIFICATE"

// chain is a certificate chain.
type chain struct {
	// pem has nothing but the certificates.
	pem []byte

	// notAfter is when the first certificate ends.
	notAfter time.Time
}

// readChain reads a signer's answer: PEM blocks with certificates, the first of which must be for the public
// key. What is between the blocks, and their headers, is dropped.
func readChain(data []byte, public crypto.PublicKey) (chain, error) {
	if len(data) > maxChain {
		return chain{}, fmt.Errorf("the certificate chain has more than %d bytes", maxChain)
	}

	var leaf *x509.Certificate
	var out bytes.Buffer
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != certificateBlock {
			return chain{}, errors.New("the certificate chain holds a PEM block of another type")
		}

		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return chain{}, fmt.Errorf("the certificate chain holds what is not a certificate: %w", err)
		}
		if leaf == nil {
			leaf = parsed
		}

		_ = pem.Encode(&out, &pem.Block{Type: certificateBlock, Bytes: block.Bytes})
	}

	if leaf == nil {
		return chain{}, errors.New("the certificate chain is empty")
	}

	own, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !own.Equal(public) {
		return chain{}, errors.New("the certificate is for another key")
	}
	return chain{pem: out.Bytes(), notAfter: leaf.NotAfter}, nil
}
