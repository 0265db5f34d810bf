package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/node/criconfig"
)

// maxHostFile bounds what is read of a file of the node.
const maxHostFile = 1 << 20

// hostFiles are files of the node that others change while pods come and go (DHCP clients, configuration
// management, kubeadm). They are read for each pod.
type hostFiles struct {
	resolver string // resolv.conf; empty: nothing of the node's
	root     string // of kubelet: credentials for all pods are in its config.json
}

// check reads the files once, so that one that cannot be read ends the start.
func (f hostFiles) check() error {
	if _, err := f.dns(); err != nil {
		return err
	}
	_, err := f.pullSecrets()
	return err
}

// dns reads the node's resolver configuration. A file that does not exist says nothing.
func (f hostFiles) dns() (criconfig.DNS, error) {
	// as kubelet
	if f.resolver == "" {
		return criconfig.DNS{Servers: []string{"127.0.0.1"}, Searches: []string{"."}}, nil
	}
	data, err := hostFile(f.resolver)
	if err != nil {
		return criconfig.DNS{}, fmt.Errorf("resolver configuration: %w", err)
	}
	return criconfig.ParseResolvConf(string(data)), nil
}

// pullSecrets reads the node's own docker configuration, nil if it has none.
func (f hostFiles) pullSecrets() ([]byte, error) {
	data, err := hostFile(filepath.Join(f.root, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("pull secrets of the node: %w", err)
	}
	return data, nil
}

// hostFile reads a file, which may be a link; nil if it does not exist.
func hostFile(path string) ([]byte, error) {
	data, err := boundedfile.ReadLinked(path, maxHostFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
