package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/node/criconfig"
)

// Files of the node that others change while pods come and go (DHCP clients, configuration management,
// kubeadm) are read for each pod.

// maxHostFile bounds what is read of such a file.
const maxHostFile = 1 << 20

// hostDNS reads the node's resolver configuration. A file that is not there says nothing.
func (a *Agent) hostDNS() (criconfig.DNS, error) {
	path := a.cfg.Kubelet.ResolverConfig
	if path == nil || *path == "" {
		// As kubelet: nothing of the node's.
		return criconfig.DNS{Servers: []string{"127.0.0.1"}, Searches: []string{"."}}, nil
	}
	data, err := hostFile(*path)
	if err != nil {
		return criconfig.DNS{}, fmt.Errorf("resolver configuration: %w", err)
	}
	return criconfig.ParseResolvConf(string(data)), nil
}

// pullSecrets reads the node's own docker configuration, with credentials for all pods.
func (a *Agent) pullSecrets() ([]byte, error) {
	data, err := hostFile(filepath.Join(a.cfg.RootDir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("pull secrets of the node: %w", err)
	}
	return data, nil
}

func hostFile(path string) ([]byte, error) {
	data, err := boundedfile.ReadLinked(path, maxHostFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
