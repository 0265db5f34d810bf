package controlplane

import (
	_ "embed"
	"os"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/e2e/machine"
)

// snapshotController is the name of the program, and of its daemon.
const snapshotController = "snapshot-controller"

// SnapshotController is that of Kubernetes, which knows group snapshots, too.
func (p Plane) SnapshotController() machine.Daemon {
	return machine.Daemon{
		Name: snapshotController,
		Argv: []string{
			p.Programs.Peer(snapshotController),
			"--kubeconfig=" + p.PKI.Path("admin.kubeconfig"),
			"--leader-election=false",
			"--feature-gates=CSIVolumeGroupSnapshot=true",
		},
	}
}

// SnapshotKinds are the kinds of objects that the snapshot controller is about, as YAML documents.
func (p Plane) SnapshotKinds() (string, error) {
	text, err := os.ReadFile(p.Programs.Peer("snapshot-kinds.yaml"))
	return string(text), err
}

// oneNode is a class whose volumes are all on node1, for groups of volumes.
//
//go:embed one-node.yaml
var oneNode string

// SnapshotClasses are the classes of trivet-csi's snapshots, group snapshots and attributes, as YAML
// documents. deploy is the directory of trivet's manifests.
func SnapshotClasses(deploy string) (string, error) {
	all := []string{oneNode}
	for _, part := range []string{"snapshots", "groupsnapshots", "attributes"} {
		files, err := filepath.Glob(filepath.Join(deploy, "csi", part, "*.yaml"))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			all = append(all, string(text))
		}
	}
	return strings.Join(all, "\n---\n"), nil
}
