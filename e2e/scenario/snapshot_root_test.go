package scenario

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestSnapshotsBecomeVolumes has a pod write to a volume, and other pods read what a snapshot and a clone of
// it have, with the snapshot controller of Kubernetes in the cluster, and no sidecar.
func TestSnapshotsBecomeVolumes(t *testing.T) {
	c := open(t)
	c.snapshotController()

	// What is written after the snapshot is not in it.
	c.claim("data", "")
	c.podWithClaim("writer", "data", "echo before >/data/file; sync; touch /n/written; sleep 3600 & wait")
	c.awaitReady(2*time.Minute, "writer")
	c.eventually(time.Minute, "the file is written", func() error {
		_, err := c.try("exec", "writer", "--", "test", "-e", "/n/written")
		return err
	})

	c.apply(`{"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
		"metadata": {"name": "snap"}, "spec": {"volumeSnapshotClassName": "trivet",
		"source": {"persistentVolumeClaimName": "data"}}}`)
	c.kubectl("wait", "volumesnapshot/snap", "--for=jsonpath={.status.readyToUse}=true", "--timeout=60s")
	c.kubectl("exec", "writer", "--", "sh", "-c", "echo after >/data/file; sync")

	c.claim("restored", `"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot",
		"name": "snap"},`)
	c.claim("cloned", `"dataSource": {"kind": "PersistentVolumeClaim", "name": "data"},`)
	for claim, want := range map[string]string{"restored": "before", "cloned": "after"} {
		c.podWithClaim("reader-of-"+claim, claim, "sleep 3600 & wait")
		c.awaitReady(2*time.Minute, "reader-of-"+claim)
		if got := c.kubectl("exec", "reader-of-"+claim, "--", "cat", "/data/file"); got != want+"\n" {
			t.Errorf("%s has %q, want %q", claim, got, want)
		}
	}

	// A snapshot outlives its volume, and its content is gone when it is deleted.
	c.kubectl("delete", "pod", "writer", "--wait")
	c.kubectl("delete", "pvc", "data", "--wait")
	c.kubectl("delete", "volumesnapshot", "snap", "--wait", "--timeout=60s")
	c.eventually(time.Minute, "the content is gone", func() error {
		left := c.kubectl("get", "volumesnapshotcontents", "-o", "name")
		if left != "" {
			return errors.New(left)
		}
		return nil
	})
}

// claim asks for a volume of the default class; source is a field with what it is to begin with, or "".
func (c *cluster) claim(name, source string) {
	c.t.Helper()
	const claim = `{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": %q}, "spec": {%s
		"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}}}`
	c.apply(fmt.Sprintf(claim, name, source))
}

// podWithClaim is pod with a volume at /data, on the test's node. The scheduler has to see it, so that the
// volume is made there.
func (c *cluster) podWithClaim(name, claim, script string) {
	c.t.Helper()
	const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": {
		"nodeSelector": {"kubernetes.io/hostname": %q}, "terminationGracePeriodSeconds": 2,
		"volumes": [{"name": "n", "emptyDir": {}},
		{"name": "data", "persistentVolumeClaim": {"claimName": %q}}],
		"containers": [{"name": "c", "image": "docker.io/trivet/demo:1", "command": ["sh", "-c", %q],
		"volumeMounts": [{"name": "n", "mountPath": "/n"}, {"name": "data", "mountPath": "/data"}]}]}}`
	c.apply(fmt.Sprintf(pod, name, c.node, claim, "trap 'exit 0' TERM; "+script))
}

// snapshotController runs upstream's until the test ends, with the kinds that it is about.
func (c *cluster) snapshotController() {
	c.t.Helper()
	bin := filepath.Join(c.root, ".trivet", "bin")
	kinds, err := os.ReadFile(filepath.Join(bin, "snapshot-kinds.yaml"))
	if err != nil {
		c.t.Fatal(err)
	}
	class, err := os.ReadFile(filepath.Join(c.root, "deploy", "csi", "snapshots", "volumesnapshotclass.yaml"))
	if err != nil {
		c.t.Fatal(err)
	}

	c.apply(string(kinds))
	c.kubectl("wait", "--for=condition=Established", "--timeout=60s",
		"crd/volumesnapshots.snapshot.storage.k8s.io", "crd/volumesnapshotclasses.snapshot.storage.k8s.io",
		"crd/volumesnapshotcontents.snapshot.storage.k8s.io")
	c.apply(string(class))

	cmd := exec.Command(filepath.Join(bin, "snapshot-controller"),
		"--kubeconfig="+filepath.Join(c.dir, "kubeconfig"), "--leader-election=false")
	cmd.Stderr = c.t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}

	c.t.Cleanup(func() {
		// The namespace's snapshots need it to go.
		c.kubectl("delete", "volumesnapshots", "--all", "--timeout=60s")
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
