package identity

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// Request is a certificate wanted from the cluster's signer.
type Request struct {
	NodeName string
	Serving  bool // a certificate to serve with, in the place of a client certificate
	DNSNames []string
	IPs      []net.IP
}

// Address adds an IP if text is one, else a name.
func (r *Request) Address(text string) {
	if ip := net.ParseIP(text); ip != nil {
		r.IPs = append(r.IPs, ip)
	} else if text != "" {
		r.DNSNames = append(r.DNSNames, text)
	}
}

// userName is that of a node in the cluster.
func userName(node string) string { return "system:node:" + node }

// object is the request as an object of the API; der is its form of PKCS #10.
func (r Request) object(der []byte) *certificatesv1.CertificateSigningRequest {
	out := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "csr-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Usages: []certificatesv1.KeyUsage{
				certificatesv1.UsageDigitalSignature,
				certificatesv1.UsageClientAuth,
			},
		},
	}
	if r.Serving {
		out.Spec.SignerName = certificatesv1.KubeletServingSignerName
		out.Spec.Usages[1] = certificatesv1.UsageServerAuth
	}

	return out
}

// Sign asks the API server for a certificate (certificates.k8s.io) and waits, by a watch, until it is issued,
// refused, or ctx ends. It returns certificate and key as PEM. A refused request is an error.
func Sign(ctx context.Context, requests Requests, r Request) (cert, key []byte, err error) {
	signer, key, err := newKey()
	if err != nil {
		return nil, nil, err
	}

	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{
			CommonName:   userName(r.NodeName),
			Organization: []string{"system:nodes"},
		},
		DNSNames:    r.DNSNames,
		IPAddresses: r.IPs,
	}, signer)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}

	created, err := requests.Create(ctx, r.object(der))
	if err != nil {
		return nil, nil, fmt.Errorf("create certificate signing request: %w", err)
	}

	cert, err = await(ctx, requests, created.Name, created.UID)
	return cert, key, err
}

// errDecided ends the watch of a request.
var errDecided = errors.New("decided")

// await waits for the decision about a request. A watch that fails (the server restarts) is begun again.
func await(ctx context.Context, requests Requests, name string, uid types.UID) ([]byte, error) {
	var cert []byte
	var refused error
	see := func(csr *certificatesv1.CertificateSigningRequest) error {
		switch {
		case csr == nil:
			refused = fmt.Errorf("certificate signing request %s was deleted", name)
		case csr.UID != uid:
			refused = fmt.Errorf("certificate signing request %s was replaced", name)
		default:
			cert, refused = decision(csr)
		}

		if cert != nil || refused != nil {
			return errDecided
		}

		return nil
	}

	for range retry.Every(ctx, time.Second) {
		err := kube.Follow(ctx, requests, "", name, see)
		if errors.Is(err, errDecided) {
			return cert, refused
		}
	}

	return nil, fmt.Errorf("certificate signing request %s is not answered (is it approved?): %w",
		name, context.Cause(ctx))
}

// decision returns the certificate of a request, nil if there is none yet. The error says why there will be
// none.
func decision(csr *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	approved := false
	for _, c := range csr.Status.Conditions {
		if c.Status == corev1.ConditionFalse {
			continue
		}

		switch c.Type {
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			return nil, fmt.Errorf("certificate signing request %s: %s: %s: %s",
				csr.Name, c.Type, c.Reason, c.Message)
		case certificatesv1.CertificateApproved:
			approved = true
		}
	}

	if !approved || len(csr.Status.Certificate) == 0 {
		return nil, nil
	}
	if block, _ := pem.Decode(csr.Status.Certificate); block == nil {
		return nil, fmt.Errorf("certificate signing request %s: the issued certificate is not PEM", csr.Name)
	}

	return csr.Status.Certificate, nil
}
