// Package review asks the API server who somebody is, what they may do (delegated authentication and
// authorization), and for tokens of service accounts.
package review

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/internal/kube"
)

// Reviews asks the API server who somebody is and what they may do: the delegated authentication and
// authorization of a server that has no users of its own.
type Reviews struct {
	authentication *rest.RESTClient
	authorization  *rest.RESTClient
}

// Of returns the reviews of a client's server.
func Of(c *kube.Client) Reviews {
	return Reviews{
		authentication: c.Group(
			authenticationv1.SchemeGroupVersion,
			authenticationv1.SchemeGroupVersion,
			&authenticationv1.TokenReview{},
		),
		authorization: c.Group(
			authorizationv1.SchemeGroupVersion,
			authorizationv1.SchemeGroupVersion,
			&authorizationv1.SubjectAccessReview{},
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
func TokensOf(c *kube.Client) Tokens {
	// A token is a subresource in the core group with a type of another one.
	return Tokens{core: c.Group(
		corev1.SchemeGroupVersion,
		authenticationv1.SchemeGroupVersion,
		&authenticationv1.TokenRequest{},
	)}
}

// Token asks for a token of the service account. A node is allowed to for its pods; see kube.RetryForbidden.
func (t Tokens) Token(
	ctx context.Context, namespace, account string, spec authenticationv1.TokenRequestSpec,
) (*authenticationv1.TokenRequest, error) {
	question := &authenticationv1.TokenRequest{Spec: spec}
	answer := &authenticationv1.TokenRequest{}
	err := kube.RetryForbidden(ctx, func() error {
		request := t.core.Post().Namespace(namespace).Resource("serviceaccounts").Name(account)
		return request.SubResource("token").Body(question).Do(ctx).Into(answer)
	})
	if err != nil {
		return nil, fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}
	return answer, nil
}
