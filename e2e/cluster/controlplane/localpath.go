package controlplane

import (
	_ "embed"

	"github.com/trivet-node/trivet/e2e/machine"
)

// LocalPath is what local-path-provisioner needs in the cluster, as YAML documents: its rights, its
// configuration, and the class of its volumes.
//
//go:embed local-path.yaml
var LocalPath string

// localPathName is the name of its identity.
const localPathName = "local-path-provisioner"

// LocalPath is local-path-provisioner.
func (p Plane) LocalPath() machine.Daemon {
	return machine.Daemon{
		Name: localPathName,
		Argv: []string{
			p.Programs.Peer(localPathName),
			"start",
			"--kubeconfig=" + p.PKI.Path(localPathName+".kubeconfig"),
			"--namespace=kube-system",
			"--service-account-name=" + localPathName,
		},
	}
}
