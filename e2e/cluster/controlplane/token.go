package controlplane

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/pki"
)

const tokenFile = "bootstrap-token"

// makeToken makes the token by which an agent without a certificate may join ("ID.SECRET"), and the
// kubeconfig that carries it. The token does not expire: agents may join as long as the cluster is up.
func makeToken(d pki.Dir, ca *pki.Authority) error {
	token, err := os.ReadFile(d.Path(tokenFile))
	if errors.Is(err, fs.ErrNotExist) {
		text := strings.ToLower(rand.Text())
		token = []byte(text[:6] + "." + text[6:22])
		err = os.WriteFile(d.Path(tokenFile), token, 0o600)
	}

	if err != nil {
		return err
	}

	kubeconfig := d.Path("bootstrap.kubeconfig")
	return pki.TokenKubeconfig(ca, "bootstrap", string(token), address.APIServer, kubeconfig)
}

// tokenSecret is a bootstrap token as the API server knows it.
func tokenSecret(token string) (string, error) {
	id, secret, ok := strings.Cut(token, ".")
	if !ok {
		return "", fmt.Errorf("%q is not a bootstrap token; take the cluster down and up again", token)
	}

	return fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-%[1]s, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData: {token-id: %[1]q, token-secret: %[2]q, usage-bootstrap-authentication: "true"}
`, id, secret), nil
}
