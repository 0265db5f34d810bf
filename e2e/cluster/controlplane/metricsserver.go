package controlplane

import (
	_ "embed"
	"encoding/base64"
	"os"
	"strings"

	"github.com/trivet-node/trivet/e2e/pki"
)

//go:embed metrics-server.yaml
var metricsServer string

// metricsServerName is the name of its certificate's files.
const metricsServerName = "metrics-server"

// MetricsServer is metrics-server with its rights and its place in the API, as YAML documents. All of them
// have the label k8s-app=metrics-server.
func MetricsServer(d pki.Dir) (string, error) {
	var pairs []string
	for place, file := range map[string]string{
		"CA_BUNDLE":   "ca.crt",
		"CERTIFICATE": metricsServerName + ".crt",
		"KEY":         metricsServerName + ".key",
	} {
		data, err := os.ReadFile(d.Path(file))
		if err != nil {
			return "", err
		}

		pairs = append(pairs, ": "+place, ": "+base64.StdEncoding.EncodeToString(data))
	}

	return strings.NewReplacer(pairs...).Replace(metricsServer), nil
}
