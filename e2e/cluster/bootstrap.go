package cluster

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/trivet-node/trivet/e2e/pki"
)

// bootstrapToken makes the token by which an agent without a certificate may join ("ID.SECRET"), and the
// kubeconfig that carries it. It is kept: agents may join for as long as the cluster is up.
func (c *Cluster) bootstrapToken(ca *pki.Authority) error {
	file := c.pki().Path("bootstrap-token")
	token, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		text := strings.ToLower(rand.Text())
		token = []byte(text[:6] + "." + text[6:22])
		err = os.WriteFile(file, token, 0o600)
	}

	if err != nil {
		return err
	}

	return pki.TokenKubeconfig(
		ca,
		"bootstrap",
		string(token),
		apiServer,
		c.pki().Path("bootstrap.kubeconfig"),
	)
}

// bootstrapSecret is the token as the API server knows it.
func (c *Cluster) bootstrapSecret() (string, error) {
	token, err := os.ReadFile(c.pki().Path("bootstrap-token"))
	if err != nil {
		return "", err
	}

	id, secret, ok := strings.Cut(string(token), ".")
	if !ok {
		return "", fmt.Errorf("%s is not a bootstrap token; take the cluster down and up again",
			c.pki().Path("bootstrap-token"))
	}

	return fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-%[1]s, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData: {token-id: %[1]q, token-secret: %[2]q, usage-bootstrap-authentication: "true"}
`, id, secret), nil
}
