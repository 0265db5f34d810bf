package podcertificate

import (
	"context"
	"log/slog"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// Requests are the PodCertificateRequests of a node.
type Requests struct {
	node     string
	accounts kube.Objects[v1.ServiceAccount]
	requests kube.Objects[certificatesv1.PodCertificateRequest]
	log      *slog.Logger
}

// Of returns the requests of the node of that name.
func Of(c *kube.Client, node string, log *slog.Logger) *Requests {
	return &Requests{
		node: node,
		accounts: kube.Of[v1.ServiceAccount, v1.ServiceAccountList](
			c, v1.SchemeGroupVersion, "serviceaccounts"),
		requests: kube.Of[certificatesv1.PodCertificateRequest, certificatesv1.PodCertificateRequestList](
			c, certificatesv1.SchemeGroupVersion, "podcertificaterequests"),
		log: log,
	}
}

// Account returns the UID of a service account.
func (r *Requests) Account(ctx context.Context, namespace, name string) (types.UID, error) {
	var found *v1.ServiceAccount
	err := kube.RetryForbidden(ctx, func() (err error) {
		found, err = r.accounts.Get(ctx, namespace, name)
		return err
	})
	if err != nil {
		return "", err
	}
	return found.UID, nil
}

// The pauses between attempts to create a request: a second in all.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 640 * time.Millisecond
)

// Create creates a request. The API server checks it by what it knows of the pod, the account and the node,
// often some milliseconds later than the node: such a refusal, which it calls an internal error, is not the
// last word.
func (r *Requests) Create(ctx context.Context, request *certificatesv1.PodCertificateRequest) error {
	var err error
	for pause := range (retry.Backoff{First: firstPause}).Attempts(ctx) {
		_, err = r.requests.Create(ctx, request)
		early := apierrors.IsForbidden(err) || apierrors.IsInternalError(err)
		if !early || pause > lastPause {
			return err
		}
	}
	return err
}

// Get reads a request.
func (r *Requests) Get(
	ctx context.Context, namespace, name string,
) (*certificatesv1.PodCertificateRequest, error) {
	return r.requests.Get(ctx, namespace, name)
}

// Watch watches the requests of the node until ctx ends.
func (r *Requests) Watch(ctx context.Context, seen, gone func(*certificatesv1.PodCertificateRequest)) {
	kube.NewWatch(r.requests, kube.WatchConfig[certificatesv1.PodCertificateRequest]{
		Field: fields.OneTermEqualSelector("spec.nodeName", r.node).String(),
		Slim:  slim,
		Changed: func(before, now *certificatesv1.PodCertificateRequest) {
			if now == nil {
				gone(before)
				return
			}
			seen(now)
		},
		Failed: func(err error) { r.log.Warn("watch of certificate requests failed", "err", err) },
	}).Run(ctx)
}

// slim keeps what the signer says. A chain that is too long is cut, and refused as too long.
func slim(r *certificatesv1.PodCertificateRequest) {
	r.ManagedFields, r.Annotations, r.Labels = nil, nil, nil
	r.Spec = certificatesv1.PodCertificateRequestSpec{}
	if chain := r.Status.CertificateChain; len(chain) > maxChain {
		r.Status.CertificateChain = strings.Clone(chain[:maxChain+1])
	}
}
