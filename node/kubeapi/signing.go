package kubeapi

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
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Request is a certificate wanted from the cluster's signer.
type Request struct {
	NodeName string
	Serving  bool // a serving certificate for :10250 rather than the client identity
	DNSNames []string
	IPs      []net.IP
}

// Sign asks the API server for a certificate (certificates.k8s.io) and waits, by a watch, until it is issued,
// refused, or ctx ends. It returns certificate and key as PEM. A refused request is an error.
func (c *Client) Sign(ctx context.Context, r Request) (cert, key []byte, err error) {
	signer, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}

	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{
			CommonName:   "system:node:" + r.NodeName,
			Organization: []string{"system:nodes"},
		},
		DNSNames:    r.DNSNames,
		IPAddresses: r.IPs,
	}, signer)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}

	csr := &certificatesv1.CertificateSigningRequest{
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
		csr.Spec.SignerName = certificatesv1.KubeletServingSignerName
		csr.Spec.Usages = []certificatesv1.KeyUsage{
			certificatesv1.UsageDigitalSignature,
			certificatesv1.UsageServerAuth,
		}
	}

	created := &certificatesv1.CertificateSigningRequest{}
	if err := c.Certificates.Post().Resource("certificatesigningrequests").Body(csr).Do(ctx).Into(created); err != nil {
		return nil, nil, fmt.Errorf("create certificate signing request: %w", err)
	}

	cert, err = c.awaitCertificate(ctx, created)
	return cert, keyPEM, err
}

func (c *Client) awaitCertificate(
	ctx context.Context,
	csr *certificatesv1.CertificateSigningRequest,
) ([]byte, error) {
	for {
		cert, err := c.watchRequest(ctx, csr.Name, csr.UID)
		if cert != nil || err != nil {
			return cert, err
		}

		// The watch ended without an answer (server restart, timeout): look again.
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("certificate signing request %s is not answered (is it approved?): %w",
				csr.Name, ctx.Err())
		case <-time.After(time.Second):
		}
	}
}

// watchRequest watches one request until it is decided. No answer and no error means: watch again.
func (c *Client) watchRequest(ctx context.Context, name string, uid types.UID) ([]byte, error) {
	opts := &metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	w, err := c.Certificates.Get().Resource("certificatesigningrequests").
		VersionedParams(
			&metav1.ListOptions{FieldSelector: opts.FieldSelector, Watch: true},
			c.Params,
		).Watch(ctx)
	if err != nil {
		return nil, nil //nolint:nilerr // the caller tries again until its context ends
	}
	defer w.Stop()

	for event := range w.ResultChan() {
		csr, ok := event.Object.(*certificatesv1.CertificateSigningRequest)
		if !ok || csr.UID != uid {
			continue
		}
		if event.Type == watch.Deleted {
			return nil, fmt.Errorf("certificate signing request %s was deleted", name)
		}
		if cert, err := decided(csr); cert != nil || err != nil {
			return cert, err
		}
	}

	return nil, nil
}

func decided(csr *certificatesv1.CertificateSigningRequest) ([]byte, error) {
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
		return nil, errors.New("certificate signing request " + csr.Name + ": the issued certificate is not PEM")
	}

	return csr.Status.Certificate, nil
}
