package kubeletconfig

import (
	"crypto/tls"
	"fmt"
	"math"
	"slices"
	"strings"
)

// TLS is how the agent's API is served: tlsMinVersion, tlsCipherSuites, tlsCurvePreferences. Certificates
// are not in it.
func (k *Configuration) TLS() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	switch k.TLSMinVersion {
	case "", "VersionTLS12":
	case "VersionTLS13":
		out.MinVersion = tls.VersionTLS13
	case "VersionTLS10", "VersionTLS11":
		// Both are broken. kubelet still serves them when that is configured.
		return nil, fmt.Errorf("tlsMinVersion %s is not served: use VersionTLS12 or VersionTLS13",
			k.TLSMinVersion)

	default:
		return nil, fmt.Errorf("tlsMinVersion %q is neither VersionTLS12 nor VersionTLS13", k.TLSMinVersion)
	}

	for _, name := range k.TLSCipherSuites {
		id, err := cipherSuite(name)
		if err != nil {
			return nil, err
		}

		out.CipherSuites = append(out.CipherSuites, id)
	}

	for _, id := range k.TLSCurvePreferences {
		curve := tls.CurveID(id)
		if id < 1 || id > math.MaxUint16 || strings.HasPrefix(curve.String(), "CurveID(") {
			return nil, fmt.Errorf("tlsCurvePreferences: %d is not a known curve", id)
		}
		if slices.Contains(out.CurvePreferences, curve) {
			return nil, fmt.Errorf("tlsCurvePreferences: %d is there twice", id)
		}

		out.CurvePreferences = append(out.CurvePreferences, curve)
	}

	return out, nil
}

// cipherSuite finds a suite by its name, the insecure ones too, as kubelet does.
func cipherSuite(name string) (uint16, error) {
	for _, list := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, suite := range list {
			if suite.Name == name {
				return suite.ID, nil
			}
		}
	}
	return 0, fmt.Errorf("tlsCipherSuites: %q is not known", name)
}
