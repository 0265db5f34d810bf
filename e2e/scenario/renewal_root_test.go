//go:build slow

package scenario

import (
	"errors"
	"testing"
	"time"
)

var errSame = errors.New("the certificate is the same")

// TestCertificatesAreRenewed takes ten minutes, as the API allows no certificate with an earlier renewal. So
// it is run by hand, on a cluster that is up:
//
//	TRIVET_E2E=$PWD/.trivet go test -tags=slow -timeout=20m -run=TestCertificatesAreRenewed ./e2e/scenario
func TestCertificatesAreRenewed(t *testing.T) {
	c := open(t)
	s := c.signs()
	c.account("p")
	c.certified("p", s, "short")
	c.awaitReady(time.Minute, "p")
	first := c.bundle("p", "0.pem")
	c.eventually(13*time.Minute, "renewal", func() error {
		if c.bundle("p", "0.pem") == first {
			return errSame
		}
		return nil
	})
	c.neverRestarted("p")
}
