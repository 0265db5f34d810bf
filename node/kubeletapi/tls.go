package kubeletapi

import (
	"crypto/tls"
	"slices"
)

// tlsConfig is that of the administrator, with the node's certificate.
func (s *Server) tlsConfig() *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.cfg.TLS != nil {
		cfg = s.cfg.TLS.Clone()
	}
	cfg.GetCertificate = s.cfg.Certificate

	// verified by the guard, against a CA file that may change
	cfg.ClientAuth = tls.RequestClientCert
	return cfg
}

// mayHTTP2 reports whether the cipher suites have one of those without which HTTP/2 over TLS 1.2 cannot be
// served (RFC 9113, section 9.2.2); net/http would not start.
func mayHTTP2(cfg *tls.Config) bool {
	return cfg.CipherSuites == nil || cfg.MinVersion >= tls.VersionTLS13 ||
		slices.Contains(cfg.CipherSuites, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) ||
		slices.Contains(cfg.CipherSuites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
}
