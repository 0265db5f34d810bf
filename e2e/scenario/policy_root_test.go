package scenario

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNodeDriverWritesOnlyWhatIsOnItsNode acts as the CSI driver of one node, with the credentials that root
// has there.
func TestNodeDriverWritesOnlyWhatIsOnItsNode(t *testing.T) {
	c := open(t)
	mine := []string{"--as=csi.trivet.dev:node:" + c.node, "--as-group=csi.trivet.dev:nodes"}
	unbound := []string{"--as=system:serviceaccount:kube-system:trivet-csi"}
	bound := append([]string{"--as-user-extra=authentication.kubernetes.io/node-name=" + c.node}, unbound...)
	own, other := volumeOn(c.namespace, "own", c.node), volumeOn(c.namespace, "other", "elsewhere")
	hostPath := hostPathVolume(c.namespace, "host-path")

	c.apply(volumeOn(c.namespace, "there", "elsewhere"))
	t.Cleanup(func() {
		c.kubectl("delete", "persistentvolume", "--ignore-not-found",
			c.namespace+"-own", c.namespace+"-other", c.namespace+"-there", c.namespace+"-secret")
	})

	there := c.namespace + "-there"
	for _, step := range []struct {
		what    string
		as      []string
		stdin   string
		args    []string
		allowed bool
	}{
		{"make a volume here", mine, own, []string{"create", "-f-"}, true},
		{"make one again, by a token that is bound to the node", bound, own,
			[]string{"apply", "--server-side", "--force-conflicts", "-f-"}, true},
		{"make one by a token that is bound to no node", unbound, volumeOn(c.namespace, "x", c.node),
			[]string{"create", "-f-"}, false},
		{"make a volume of another node", mine, other, []string{"create", "-f-"}, false},
		{"make a volume of the host's root", mine, hostPath, []string{"create", "-f-"}, false},
		{"change a volume of another node", mine, "", []string{
			"patch", "persistentvolume", there, "--type=merge",
			`-p={"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`,
		}, false},
		{"delete a volume of another node", mine, "", []string{"delete", "persistentvolume", there}, false},
		{"name a Secret of the claim's namespace", mine, secretOn(c.namespace, c.node, c.namespace),
			[]string{"create", "-f-"}, true},
		{"name a Secret of another namespace", mine, secretOn(c.namespace, c.node, "kube-system"),
			[]string{"create", "-f-"}, false},
		{"give a volume with a Secret to another claim", mine, "", []string{
			"patch", "persistentvolume", c.namespace + "-secret", "--type=merge",
			`-p={"spec":{"claimRef":{"namespace":"kube-system"}}}`,
		}, false},
		{"tell the capacity of another node", mine, capacityOf(c.namespace, "elsewhere"),
			[]string{"create", "-f-"}, false},
	} {
		_, err := c.run(
			time.Minute,
			step.stdin,
			filepath.Join(c.root, ".trivet/bin/kubectl"),
			append(step.as, step.args...)...)
		if step.allowed && err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
		if !step.allowed && (err == nil || !isByPolicy(err)) {
			t.Errorf("%s: %v, want a refusal by the policy", step.what, err)
		}
	}
}

// TestOnlyVolumesOfNodesThatAreGoneAreForgotten acts as trivet-csi forget-node --after.
func TestOnlyVolumesOfNodesThatAreGoneAreForgotten(t *testing.T) {
	c := open(t)
	manifest := filepath.Join(c.root, "deploy/csi/forget/forget.yaml")
	c.snapshotKinds()
	c.kubectl("apply", "--namespace=kube-system", "-f", manifest)
	here, there := c.namespace+"-here", c.namespace+"-there"
	t.Cleanup(func() {
		c.kubectl("delete", "--namespace=kube-system", "--ignore-not-found", "-f", manifest)
		c.kubectl("delete", "pv,volumesnapshotcontent", "--ignore-not-found", "--wait=false", here)
	})

	c.apply(volumeOn(c.namespace, "here", c.node))
	c.apply(volumeOn(c.namespace, "there", "elsewhere"))
	c.apply(snapshotOn(c.namespace, "here", c.node))
	c.apply(snapshotOn(c.namespace, "there", "elsewhere"))
	c.eventually(time.Minute, "the policies are in force", func() error {
		for _, kind := range []string{"pv", "volumesnapshotcontent"} {
			for _, args := range [][]string{{"label", kind, there, "a=b"}, {"delete", kind, here}} {
				err := c.asForgetter(append(args, "--dry-run=server")...)
				if err == nil {
					return fmt.Errorf("%q is allowed", args)
				}
				if !isByPolicy(err) {
					return err
				}
			}
		}
		return nil
	})

	bare := `-p={"metadata":{"finalizers":null}}`
	mark := `-p={"metadata":{"annotations":{"csi.trivet.dev/node-missing-since":"2026-11-30T12:00:00Z"}}}`
	move := fmt.Sprintf(`-p={"metadata":{"annotations":{"topology.csi.trivet.dev/node":%q}}}`, "gone")
	for _, kind := range []string{"pv", "volumesnapshotcontent"} {
		for _, step := range []struct {
			what    string
			args    []string
			allowed bool
		}{
			{"delete one of a node that exists", []string{"delete", kind, here, "--wait=false"}, false},
			{"keep nothing from being deleted", []string{"patch", kind, there, "--type=merge", bare}, false},
			{"label one", []string{"label", kind, there, "a=b"}, false},
			{"say that it is elsewhere", []string{"patch", kind, here, "--type=merge", move}, false},
			{"mark one", []string{"patch", kind, there, "--type=merge", mark}, true},
			{"delete one of a node that is gone", []string{"delete", kind, there, "--wait=false"}, true},
		} {
			err := c.asForgetter(step.args...)
			if step.allowed && err != nil {
				t.Errorf("%s: %s: %v", kind, step.what, err)
			}
			if !step.allowed && (err == nil || !isByPolicy(err)) {
				t.Errorf("%s: %s: %v, want a refusal by the policy", kind, step.what, err)
			}
		}
	}
	if err := c.asForgetter("patch", "volumesnapshotcontent", there, "--type=merge", bare); err != nil {
		t.Errorf("what is being deleted is not let go: %v", err)
	}
}

// asForgetter calls kubectl with the rights of trivet-csi forget-node --after.
func (c *cluster) asForgetter(args ...string) error {
	as := "--as=system:serviceaccount:kube-system:trivet-csi-forget"
	kubectl := filepath.Join(c.root, ".trivet/bin/kubectl")
	_, err := c.run(time.Minute, "", kubectl, append([]string{as}, args...)...)
	return err
}

func isByPolicy(err error) bool { return strings.Contains(err.Error(), "ValidatingAdmissionPolicy") }

// volumeOn is a volume of the driver's on a node.
func volumeOn(namespace, name, node string) string {
	const volume = `{"apiVersion": "v1", "kind": "PersistentVolume",
		"metadata": {"name": "%[1]s-%[2]s"}, "spec": {
		"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
		"persistentVolumeReclaimPolicy": "Retain", "storageClassName": "none",
		"csi": {"driver": "csi.trivet.dev", "volumeHandle": "%[1]s-%[2]s"},
		"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
			{"key": "topology.csi.trivet.dev/node", "operator": "In", "values": [%[3]q]}]}]}}}}`
	return fmt.Sprintf(volume, namespace, name, node)
}

// secretOn is a volume of the driver's on a node, for a claim, with a Secret of a namespace.
func secretOn(namespace, node, secretNamespace string) string {
	volume := volumeOn(namespace, "secret", node)
	spec := fmt.Sprintf(`"claimRef": {"namespace": %q, "name": "none"}, "csi": {`+
		`"nodeStageSecretRef": {"namespace": %q, "name": "key"},`, namespace, secretNamespace)
	return strings.Replace(volume, `"csi": {`, spec, 1)
}

// snapshotOn is the content of a snapshot of the driver's on a node.
func snapshotOn(namespace, name, node string) string {
	const content = `{"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
		"metadata": {"name": "%[1]s-%[2]s", "annotations": {"topology.csi.trivet.dev/node": %[3]q},
		"finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"]},
		"spec": {"driver": "csi.trivet.dev", "deletionPolicy": "Retain",
		"source": {"snapshotHandle": "%[1]s-%[2]s"},
		"volumeSnapshotRef": {"namespace": "%[1]s", "name": "%[2]s"}}}`
	return fmt.Sprintf(content, namespace, name, node)
}

// hostPathVolume is the whole host as a volume.
func hostPathVolume(namespace, name string) string {
	const volume = `{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "%s-%s"}, "spec": {
		"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
		"storageClassName": "none", "hostPath": {"path": "/"}}}`
	return fmt.Sprintf(volume, namespace, name)
}

// capacityOf says how much room a node has.
func capacityOf(name, node string) string {
	return fmt.Sprintf(`{"apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity",
		"metadata": {"name": %q, "namespace": "kube-system"}, "storageClassName": "none", "capacity": "1Gi",
		"nodeTopology": {"matchLabels": {"topology.csi.trivet.dev/node": %q}}}`, name, node)
}
