package auth

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/trivet-node/trivet/node/kubeapi"
)

// reviewTimeout bounds a question to the API server: the caller waits for it.
const reviewTimeout = 10 * time.Second

// APIServer asks the real API server.
type APIServer struct{ Client *kubeapi.Client }

// Token asks whose token it is.
func (a APIServer) Token(ctx context.Context, token string) (authenticationv1.TokenReviewStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	out := &authenticationv1.TokenReview{}
	in := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	if err := a.Client.Authentication.Post().Resource("tokenreviews").Body(in).Do(ctx).Into(out); err != nil {
		return out.Status, fmt.Errorf("review token: %w", err)
	}
	return out.Status, nil
}

// Access asks whether a user may do something.
func (a APIServer) Access(
	ctx context.Context,
	spec authorizationv1.SubjectAccessReviewSpec,
) (authorizationv1.SubjectAccessReviewStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	out := &authorizationv1.SubjectAccessReview{}
	in := &authorizationv1.SubjectAccessReview{Spec: spec}
	if err := a.Client.Authorization.Post().Resource("subjectaccessreviews").Body(in).Do(ctx).Into(out); err != nil {
		return out.Status, fmt.Errorf("review access: %w", err)
	}
	return out.Status, nil
}
