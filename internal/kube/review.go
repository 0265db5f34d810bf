package kube

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/internal/retry"
)

// Reviews asks the API server who somebody is and what they may do: the delegated authentication and
// authorization of a server that has no users of its own.
type Reviews struct {
	authentication *rest.RESTClient
	authorization  *rest.RESTClient
}

// ReviewsOf returns the reviews of a client's server.
func ReviewsOf(c *Client) Reviews {
	return Reviews{
		authentication: c.group(
			authenticationv1.SchemeGroupVersion,
			schemeOf(authenticationv1.SchemeGroupVersion, &authenticationv1.TokenReview{}),
		),
		authorization: c.group(
			authorizationv1.SchemeGroupVersion,
			schemeOf(authorizationv1.SchemeGroupVersion, &authorizationv1.SubjectAccessReview{}),
		),
	}
}

// reviewTimeout bounds a review: somebody's request waits for it.
const reviewTimeout = 10 * time.Second

// Token asks whose token it is.
func (r Reviews) Token(ctx context.Context, token string) (authenticationv1.TokenReviewStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()

	question := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	answer := &authenticationv1.TokenReview{}
	err := r.authentication.Post().Resource("tokenreviews").Body(question).Do(ctx).Into(answer)
	if err != nil {
		return answer.Status, fmt.Errorf("review token: %w", err)
	}
	return answer.Status, nil
}

// Access asks whether a user may do something.
func (r Reviews) Access(
	ctx context.Context, spec authorizationv1.SubjectAccessReviewSpec,
) (authorizationv1.SubjectAccessReviewStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()

	question := &authorizationv1.SubjectAccessReview{Spec: spec}
	answer := &authorizationv1.SubjectAccessReview{}
	err := r.authorization.Post().Resource("subjectaccessreviews").Body(question).Do(ctx).Into(answer)
	if err != nil {
		return answer.Status, fmt.Errorf("review access: %w", err)
	}
	return answer.Status, nil
}

// Tokens are the tokens of service accounts.
type Tokens struct{ core *rest.RESTClient }

// TokensOf returns the tokens that a client's server issues.
func TokensOf(c *Client) Tokens {
	// A token is a subresource in the core group with a type of another one.
	scheme := schemeOf(authenticationv1.SchemeGroupVersion, &authenticationv1.TokenRequest{})
	return Tokens{core: c.group(corev1.SchemeGroupVersion, scheme)}
}

// Token asks for a token of the service account. A node is allowed to for its pods; see RetryForbidden.
func (t Tokens) Token(
	ctx context.Context, namespace, account string, spec authenticationv1.TokenRequestSpec,
) (*authenticationv1.TokenRequest, error) {
	question := &authenticationv1.TokenRequest{Spec: spec}
	answer := &authenticationv1.TokenRequest{}
	err := RetryForbidden(ctx, func() error {
		request := t.core.Post().Namespace(namespace).Resource("serviceaccounts").Name(account)
		return request.SubResource("token").Body(question).Do(ctx).Into(answer)
	})
	if err != nil {
		return nil, fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}
	return answer, nil
}

// The first and the last pause of RetryForbidden.
const (
	firstForbidden = 5 * time.Millisecond
	lastForbidden  = 640 * time.Millisecond
)

// RetryForbidden calls read until the API server does not answer Forbidden any more, for about a second. The
// Node authorizer allows a node what its pods refer to, and learns of a pod from a watch of its own: often
// some milliseconds after the node has begun to act on it.
func RetryForbidden(ctx context.Context, read func() error) error {
	var err error
	for pause := range (retry.Backoff{First: firstForbidden}).Attempts(ctx) {
		if err = read(); !apierrors.IsForbidden(err) || pause > lastForbidden {
			return err
		}
	}
	return err
}
