package review_test

import (
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/kube/review"
)

func TestReviewsAndTokensAreAnsweredByTheServer(t *testing.T) {
	server := kubetest.Start(t)
	server.AnswerOn("create tokenreviews", func(request runtime.Object) runtime.Object {
		review := request.(*authenticationv1.TokenReview)
		review.Status.User.Username = "owner of " + review.Spec.Token
		return review
	})

	server.AnswerOn("create subjectaccessreviews", func(request runtime.Object) runtime.Object {
		review := request.(*authorizationv1.SubjectAccessReview)
		review.Status.Allowed = review.Spec.User == "a"
		return review
	})

	server.AnswerOn("create serviceaccounts/token", func(request runtime.Object) runtime.Object {
		token := request.(*authenticationv1.TokenRequest)
		token.Status.Token = "t for " + token.Spec.Audiences[0]
		return token
	})

	reviews := review.Of(server.Client())
	who, err := reviews.Token(t.Context(), "x")
	if err != nil || who.User.Username != "owner of x" {
		t.Errorf("%+v, %v", who, err)
	}

	may, err := reviews.Access(t.Context(), authorizationv1.SubjectAccessReviewSpec{User: "a"})
	if err != nil || !may.Allowed {
		t.Errorf("%+v, %v", may, err)
	}

	spec := authenticationv1.TokenRequestSpec{Audiences: []string{"z"}}
	token, err := review.TokensOf(server.Client()).Token(t.Context(), "ns", "default", spec)
	if err != nil || token.Status.Token != "t for z" {
		t.Errorf("%+v, %v", token, err)
	}
}

func TestAServerThatDoesNotAnswerIsAnError(t *testing.T) {
	server := kubetest.Start(t)
	gone := apierrors.NewServiceUnavailable("gone")
	server.FailOn("create tokenreviews", -1, gone)
	server.FailOn("create subjectaccessreviews", -1, gone)
	server.FailOn("create serviceaccounts/token", -1, gone)
	reviews, tokens := review.Of(server.Client()), review.TokensOf(server.Client())
	if _, err := reviews.Token(t.Context(), "x"); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("token: %v", err)
	}

	_, err := reviews.Access(t.Context(), authorizationv1.SubjectAccessReviewSpec{})
	if !apierrors.IsServiceUnavailable(err) {
		t.Errorf("access: %v", err)
	}

	_, err = tokens.Token(t.Context(), "ns", "a", authenticationv1.TokenRequestSpec{})
	if !apierrors.IsServiceUnavailable(err) {
		t.Errorf("token request: %v", err)
	}
}
