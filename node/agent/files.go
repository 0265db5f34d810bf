package agent

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/kubeletconfig"
)

// checkFiles ends the start where a file that the configuration names is not what it should be: without the
// CA no client of the agent's API could be told from another, without the certificate there is no API.
func checkFiles(k *kubeletconfig.Configuration) error {
	if path := k.Authentication.X509.ClientCAFile; path != "" {
		pem, err := os.ReadFile(path)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
			err = fmt.Errorf("%s holds no certificate", path)
		}
		if err != nil {
			return &program.UsageError{Err: fmt.Errorf("authentication.x509.clientCAFile: %w", err)}
		}
	}
	if k.TLSCertFile != "" {
		if _, err := tls.LoadX509KeyPair(k.TLSCertFile, k.TLSPrivateKeyFile); err != nil {
			return &program.UsageError{Err: fmt.Errorf("tlsCertFile, tlsPrivateKeyFile: %w", err)}
		}
	}
	return nil
}
