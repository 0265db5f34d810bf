// Package hostsfile writes the /etc/hosts of pods. Containers have the file mounted and may have made
// anything of it, so it is opened and read like any file of a stranger.
package hostsfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/node/criconfig"
)

// maxNode bounds what is taken of the node's own /etc/hosts: lists of blocked names have some megabytes.
const maxNode = 16 << 20

// Writer writes the files of all pods of a node.
type Writer struct {
	// NodeFile is the node's /etc/hosts, for pods on its network. One that does not exist is empty.
	NodeFile      string
	ClusterDomain string
}

// Write writes the file of a pod with the addresses ips into the pod's directory and returns its path.
// Running containers see what it has now.
func (w Writer) Write(podDir string, pod *v1.Pod, ips []string) (path string, err error) {
	var node []byte
	if pod.Spec.HostNetwork {
		if node, err = w.node(); err != nil {
			return "", err
		}
	}

	path = filepath.Join(podDir, "etc-hosts")
	want := criconfig.Hosts(pod, ips, w.ClusterDomain, node)
	if have, err := boundedfile.Read(path, int64(len(want))); err == nil && bytes.Equal(have, want) {
		return path, nil
	}

	if err := os.MkdirAll(podDir, 0o750); err != nil {
		return "", err
	}

	// A file that is there is written in place: it is mounted.
	if f, err := boundedfile.Open(path, os.O_WRONLY|os.O_TRUNC); err == nil {
		_, err = f.Write(want)
		return path, errors.Join(err, f.Close())
	}

	return path, durable.WriteVolatile(path, want, 0o644)
}

func (w Writer) node() ([]byte, error) {
	data, err := boundedfile.ReadLinked(w.NodeFile, maxNode)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
