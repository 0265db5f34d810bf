package scenario

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

	// From a node that does not have the snapshot the claim comes to the one that has it.
	if second := c.second(); second != "" {
		c.kubectl("annotate", "pvc", "restored", selectedNode+"="+second)
		c.awaitEvent("restored", "ProvisioningFailed", "on another node")
		home := c.kubectl("get", "pod", "writer", "-o", "jsonpath={.spec.nodeName}")
		c.awaitField("pvc/restored", selected, home)
	}
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

// TestGroupSnapshotsAreOfOneMoment has a pod count in two volumes, and restores both from a snapshot of the
// group, with the snapshot controller of Kubernetes in the cluster, and no sidecar.
func TestGroupSnapshotsAreOfOneMoment(t *testing.T) {
	c := open(t)
	c.snapshotController()
	for _, name := range []string{"one", "two"} {
		c.claim(name, "")
		c.kubectl("label", "pvc", name, "app=counter")
	}
	c.podWithClaims("counter", []string{"one", "two"}, `n=1; while :; do
		echo $n >>/data/one/n; sync; echo $n >>/data/two/n; sync; n=$((n+1)); touch /n/counts; done`)
	c.awaitReady(2*time.Minute, "counter")
	c.eventually(time.Minute, "the pod counts", func() error {
		_, err := c.try("exec", "counter", "--", "test", "-e", "/n/counts")
		return err
	})

	c.apply(`{"apiVersion": "groupsnapshot.storage.k8s.io/v1", "kind": "VolumeGroupSnapshot",
		"metadata": {"name": "group"}, "spec": {"volumeGroupSnapshotClassName": "trivet",
		"source": {"selector": {"matchLabels": {"app": "counter"}}}}}`)
	const ready = "--for=jsonpath={.status.readyToUse}=true"
	c.kubectl("wait", "volumegroupsnapshot/group", ready, "--timeout=60s")

	// The controller makes a VolumeSnapshot for each volume.
	for _, claim := range []string{"one", "two"} {
		var snapshot string
		c.eventually(time.Minute, "the snapshot of "+claim, func() error {
			snapshot = c.kubectl("get", "volumesnapshots", "-o", fmt.Sprintf(
				`jsonpath={.items[?(@.spec.source.persistentVolumeClaimName==%q)].metadata.name}`, claim))
			if snapshot == "" {
				return errors.New("there is none")
			}
			return nil
		})
		c.kubectl("wait", "volumesnapshot/"+snapshot, ready, "--timeout=60s")
		c.claim("restored-"+claim, fmt.Sprintf(`"dataSource": {"apiGroup": "snapshot.storage.k8s.io",
			"kind": "VolumeSnapshot", "name": %q},`, snapshot))
	}

	c.podWithClaims("reader", []string{"restored-one", "restored-two"}, "sleep 3600 & wait")
	c.awaitReady(2*time.Minute, "reader")
	one := c.lastNumber("reader", "/data/restored-one/n")
	two := c.lastNumber("reader", "/data/restored-two/n")
	if one != two && one != two+1 {
		t.Errorf("the volumes were at %d and %d", one, two)
	}

	c.kubectl("delete", "volumegroupsnapshot", "group", "--wait", "--timeout=60s")
	c.eventually(time.Minute, "the contents are gone", func() error {
		left := c.kubectl("get", "volumegroupsnapshotcontents,volumesnapshotcontents", "-o", "name")
		if left != "" {
			return errors.New(left)
		}
		return nil
	})
}

// lastNumber returns the last number that a file of a pod holds.
func (c *cluster) lastNumber(pod, path string) int {
	c.t.Helper()
	numbers := strings.Fields(c.kubectl("exec", pod, "--", "cat", path))
	if len(numbers) == 0 {
		return 0
	}
	n, err := strconv.Atoi(numbers[len(numbers)-1])
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// podWithClaims is podWithClaim with several volumes, each at /data/CLAIM.
func (c *cluster) podWithClaims(name string, claims []string, script string) {
	c.t.Helper()
	var volumes, mounts strings.Builder
	for _, claim := range claims {
		fmt.Fprintf(&volumes, `, {"name": %q, "persistentVolumeClaim": {"claimName": %q}}`, claim, claim)
		fmt.Fprintf(&mounts, `, {"name": %q, "mountPath": "/data/%s"}`, claim, claim)
	}
	const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": {
		"nodeSelector": {"kubernetes.io/hostname": %q}, "terminationGracePeriodSeconds": 2,
		"volumes": [{"name": "n", "emptyDir": {}}%s],
		"containers": [{"name": "c", "image": "docker.io/trivet/demo:1", "command": ["sh", "-c", %q],
		"volumeMounts": [{"name": "n", "mountPath": "/n"}%s]}]}}`
	c.apply(fmt.Sprintf(pod, name, c.node, volumes.String(), "trap 'exit 0' TERM; "+script, mounts.String()))
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

// snapshotKinds installs those that upstream's snapshot controller is about.
func (c *cluster) snapshotKinds() {
	c.t.Helper()
	kinds, err := os.ReadFile(filepath.Join(c.root, ".trivet/bin/snapshot-kinds.yaml"))
	if err != nil {
		c.t.Fatal(err)
	}

	c.apply(string(kinds))
	for _, kind := range []string{"snapshots", "snapshotclasses", "snapshotcontents"} {
		c.kubectl("wait", "--for=condition=Established", "--timeout=60s",
			"crd/volume"+kind+".snapshot.storage.k8s.io",
			"crd/volumegroup"+kind+".groupsnapshot.storage.k8s.io")
	}
}

// snapshotController runs upstream's until the test ends.
func (c *cluster) snapshotController() {
	c.t.Helper()
	c.snapshotKinds()
	deploy := filepath.Join(c.root, "deploy", "csi")
	for _, classes := range []string{"snapshots", "groupsnapshots"} {
		c.kubectl("apply", "-f", filepath.Join(deploy, classes))
	}

	cmd := exec.Command(filepath.Join(c.root, ".trivet/bin/snapshot-controller"),
		"--kubeconfig="+filepath.Join(c.dir, "kubeconfig"), "--leader-election=false",
		"--feature-gates=CSIVolumeGroupSnapshot=true")
	cmd.Stderr = c.t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}

	c.t.Cleanup(func() {
		// The namespace's snapshots need it to go.
		c.kubectl("delete", "volumegroupsnapshots,volumesnapshots", "--all", "--timeout=60s")
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}
