package part

import (
	"context"
	_ "embed"
	"path/filepath"
)

// snapshots are what volumes need for snapshots that is of Kubernetes, and not in it: the kinds, and their
// controller; and the class of deploy/csi.
type snapshots struct {
	cluster Cluster

	// kinds is the file with the kinds, classes the directory with the class.
	kinds, classes string
}

//go:embed snapshots.yaml
var snapshotController string

func (s snapshots) install(ctx context.Context) error {
	_, err := s.cluster.Kubectl(ctx, "", "apply", "--server-side", "-f", s.kinds)
	if err != nil {
		return err
	}
	_, err = s.cluster.Kubectl(ctx, "", "wait", "--for=condition=Established", limit, "-f", s.kinds)
	if err != nil {
		return err
	}
	_, err = s.cluster.Kubectl(ctx, snapshotController, "apply", "-f", "-", "-f", s.classes)
	return err
}

// works returns when the controller runs.
func (s snapshots) works(ctx context.Context) error {
	_, err := s.cluster.Kubectl(ctx, "", "-n", "kube-system", "rollout", "status",
		"deployment/snapshot-controller", limit)
	return err
}

func (s snapshots) remove(ctx context.Context) error {
	_, err := s.cluster.Kubectl(ctx, snapshotController, "delete", "--ignore-not-found", "-f", "-", "-f",
		s.kinds)
	return err
}

func (p CSI) snapshots() snapshots {
	return snapshots{
		cluster: p.Cluster,
		kinds:   p.SnapshotKinds,
		classes: filepath.Join(p.Files.Deploy, "csi/snapshots"),
	}
}
