package kubeapi

import (
	"fmt"
	"net"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// userAgent names the program in the API server's audit log.
const userAgent = "trivet-node"

// Load reads a kubeconfig file as kubectl does: its current context, relative paths taken from the file's
// directory.
func Load(path string) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		rules,
		&clientcmd.ConfigOverrides{},
	).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	cfg.UserAgent = userAgent
	cfg.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	return cfg, nil
}

// writeKubeconfig writes the kubeconfig of the node's own identity: the server of cfg, and pem as certificate
// and key. client-go reads the two again when the file changes, so a rotated certificate needs no new
// kubeconfig.
func writeKubeconfig(path string, cfg *rest.Config, pem string) error {
	abs, err := filepath.Abs(pem)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", path, err)
	}

	out := clientcmdapi.NewConfig()
	out.Clusters["default-cluster"] = &clientcmdapi.Cluster{
		Server:                   cfg.Host,
		TLSServerName:            cfg.ServerName,
		InsecureSkipTLSVerify:    cfg.Insecure,
		CertificateAuthority:     cfg.CAFile,
		CertificateAuthorityData: cfg.CAData,
	}

	out.AuthInfos["default-auth"] = &clientcmdapi.AuthInfo{ClientCertificate: abs, ClientKey: abs}
	out.Contexts["default-context"] = &clientcmdapi.Context{
		Cluster:   "default-cluster",
		AuthInfo:  "default-auth",
		Namespace: "default",
	}

	out.CurrentContext = "default-context"
	if err := clientcmd.WriteToFile(*out, path); err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", path, err)
	}

	return nil
}
