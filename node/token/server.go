package token

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/trivet-node/trivet/node/kubeapi"
)

// Server is the Issuer of a real cluster: the API server.
type Server struct{ Client *kubeapi.Client }

// Token makes a TokenRequest for the service account.
func (s Server) Token(
	ctx context.Context,
	namespace, account string,
	spec authenticationv1.TokenRequestSpec,
) (*authenticationv1.TokenRequest, error) {
	out := &authenticationv1.TokenRequest{}
	err := kubeapi.Patient(ctx, func() error {
		return s.Client.Core.Post().
			Namespace(namespace).
			Resource("serviceaccounts").
			Name(account).
			SubResource("token").
			Body(&authenticationv1.TokenRequest{Spec: spec}).
			Do(ctx).
			Into(out)
	})
	if err != nil {
		return nil, fmt.Errorf("token of service account %s/%s: %w", namespace, account, err)
	}

	return out, nil
}
