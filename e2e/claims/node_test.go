package claims

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/testenv"
)

const (
	driverName  = "csi.trivet.dev"
	topologyKey = "topology.csi.trivet.dev/node"
)

// node is a Node, as the API has it, whose trivet-csi runs here. The test is its kubelet.
type node struct {
	*plane
	name string
	dir  string
	conn *grpc.ClientConn
}

// provisioning has trivet-csi make the volumes of claims itself.
func (p *plane) provisioning() []string { return []string{"--kubeconfig=" + p.kubeconfig} }

// node starts the driver of a node and enters it, as kubelet does.
func (p *plane) node(name string, flags []string) *node {
	p.t.Helper()
	n := &node{plane: p, name: name, dir: testenv.ShortDir(p.t)}
	p.t.Cleanup(func() {
		if err := mount.UnmountBelow(n.dir); err != nil {
			p.t.Error(err)
		}
	})
	p.apply(fmt.Sprintf(`{"apiVersion": "v1", "kind": "Node",
		"metadata": {"name": %q, "labels": {%q: %[1]q}}}`, name, topologyKey))
	p.apply(fmt.Sprintf(`{"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": %q},
		"spec": {"drivers": [{"name": %q, "nodeID": %[1]q, "topologyKeys": [%q]}]}}`,
		name, driverName, topologyKey))

	where := append(n.where(), "--registration-dir=", "--pool-size=2Gi", "--reserve=1Mi")
	p.run(n.program(), nil, append(where, flags...)...)
	var err error
	if n.conn, err = socket.Dial(n.socket()); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { n.conn.Close() })
	p.eventually("the driver of "+name, func() error {
		_, err := csi.NewIdentityClient(n.conn).Probe(p.t.Context(), &csi.ProbeRequest{})
		return err
	})
	return n
}

func (n *node) program() string { return filepath.Join(n.root, "bin/trivet-csi") }
func (n *node) socket() string  { return filepath.Join(n.dir, "csi.sock") }

// where are the flags that the driver and a person's commands have in common.
func (n *node) where() []string {
	return []string{
		"--endpoint=unix://" + n.socket(),
		"--node-name=" + n.name,
		"--data-dir=" + filepath.Join(n.dir, "data"),
		"--state-dir=" + filepath.Join(n.dir, "run"),
		"--kubelet-dir=" + filepath.Join(n.dir, "kubelet"),
	}
}

// verb is a command of a person on the node.
func (n *node) verb(verb string, args ...string) *exec.Cmd {
	return n.command(n.t.Context(), n.program(), append(append([]string{verb}, n.where()...), args...)...)
}

// claim asks for a volume of the default class on the node, which the scheduler would have selected; source
// is a field with what it is to begin with, or "".
func (n *node) claim(name, source string) {
	n.t.Helper()
	n.apply(fmt.Sprintf(`{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": %q,
		"annotations": {"volume.kubernetes.io/selected-node": %q}}, "spec": {%s "storageClassName": "trivet",
		"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}}`,
		name, n.name, source))
}

// bound waits until a claim has a volume, and returns the names of the PersistentVolume and of its content.
func (n *node) bound(claim string) (pv, handle string) {
	n.t.Helper()
	n.await("pvc/"+claim, "{.status.phase}", "Bound")
	pv = n.kubectl("get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}")
	return pv, n.kubectl("get", "pv", pv, "-o", "jsonpath={.spec.csi.volumeHandle}")
}

func capability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{
			Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		},
	}
}

// use has the volume on a path as long as f runs, as a pod would.
func (n *node) use(handle string, f func(path string) error) {
	n.t.Helper()
	ctx, kubelet := n.t.Context(), csi.NewNodeClient(n.conn)
	stage := filepath.Join(n.dir, "kubelet/stage", handle)
	target := filepath.Join(n.dir, "kubelet/pods", handle, "mount")
	err := errors.Join(os.MkdirAll(stage, 0o755), os.MkdirAll(filepath.Dir(target), 0o755))
	if err != nil {
		n.t.Fatal(err)
	}

	_, err = kubelet.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId:          handle,
		StagingTargetPath: stage,
		VolumeCapability:  capability(),
	})
	if err == nil {
		_, err = kubelet.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId:          handle,
			StagingTargetPath: stage,
			TargetPath:        target,
			VolumeCapability:  capability(),
		})
	}
	if err == nil {
		err = f(target)
	}

	_, unpublished := kubelet.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{
		VolumeId:   handle,
		TargetPath: target,
	})
	_, unstaged := kubelet.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{
		VolumeId:          handle,
		StagingTargetPath: stage,
	})
	if err := errors.Join(err, unpublished, unstaged); err != nil {
		n.t.Fatalf("volume %s: %v", handle, err)
	}
}

// write writes to the volume of a claim.
func (n *node) write(handle, text string) {
	n.t.Helper()
	n.use(handle, func(path string) error {
		return os.WriteFile(filepath.Join(path, "file"), []byte(text), 0o600)
	})
}

// checkRead fails the test if the volume does not have what was written.
func (n *node) checkRead(handle, want string) {
	n.t.Helper()
	n.use(handle, func(path string) error {
		got, err := os.ReadFile(filepath.Join(path, "file"))
		if err == nil && string(got) != want {
			err = fmt.Errorf("it has %q, want %q", got, want)
		}
		return err
	})
}

// holds returns the volumes and snapshots that the driver has.
func (n *node) holds() (all []string, err error) {
	ctx := context.WithoutCancel(n.t.Context())
	controller := csi.NewControllerClient(n.conn)
	volumes, errVolumes := controller.ListVolumes(ctx, &csi.ListVolumesRequest{})
	for _, v := range volumes.GetEntries() {
		all = append(all, v.GetVolume().GetVolumeId())
	}
	snapshots, errSnapshots := controller.ListSnapshots(ctx, &csi.ListSnapshotsRequest{})
	for _, s := range snapshots.GetEntries() {
		all = append(all, s.GetSnapshot().GetSnapshotId())
	}
	return all, errors.Join(errVolumes, errSnapshots)
}

// awaitHolds waits until the driver has so many volumes and snapshots.
func (n *node) awaitHolds(want int) {
	n.t.Helper()
	n.eventually("what "+n.name+" holds", func() error {
		all, err := n.holds()
		if err == nil && len(all) != want {
			slices.Sort(all)
			err = fmt.Errorf("%s, want %d", strings.Join(all, " "), want)
		}
		return err
	})
}
