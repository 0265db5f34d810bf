package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/pki"
)

func TestDaemonsOfANodeFollowItsSeats(t *testing.T) {
	withLocalPath := seat.Ours
	withLocalPath.CSI = seat.LocalPath
	for want, seats := range map[string]seat.Seats{
		"trivet-node kube-proxy trivet-netd trivet-csi": seat.Ours,
		"kubelet kube-proxy trivet-csi":                 seat.Reference,
		"trivet-node kube-proxy trivet-netd":            withLocalPath,
	} {
		var names []string
		for _, d := range joiners(seat.Programs{}, 0, Node{Name: "node1", Seats: seats}) {
			names = append(names, d.Name)
		}

		if got := strings.Join(names, " "); got != want {
			t.Errorf("daemons %s, want %s", got, want)
		}
	}
}

func TestMachineOfCritestHasAProgramInEachSeat(t *testing.T) {
	for _, oci := range []string{"crun", "runc"} {
		if n := critestNode(oci); n.Validate() != nil || n.OCI != oci {
			t.Errorf("%+v: %v", n, n.Validate())
		}
	}
}

func TestNodeFilesAreWrittenOnceAndSecretsForRootOnly(t *testing.T) {
	d := nodeFiles(t.TempDir())
	config := map[string]string{"/etc/trivet/x.json": "{}"}
	if err := d.write(config); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(string(d), "etc/trivet/x.json")
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write(config); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(file); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("a file that has its content was written again: %v", err)
	}

	from := pki.Dir(t.TempDir())
	if err := os.WriteFile(from.Path("a.key"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.copySecrets(from, "/etc/kubernetes", map[string]string{"a.key": "pki/b.key"}); err != nil {
		t.Fatal(err)
	}

	info, err := os.Stat(filepath.Join(string(d), "etc/kubernetes/pki/b.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the secret %v, %v", info, err)
	}
}

func TestProgramsAreLinkedAgainWithoutAnError(t *testing.T) {
	d := nodeFiles(t.TempDir())
	for range 2 {
		if err := d.link("/opt/cni/bin", map[string]string{"bridge": "/ref/bridge"}); err != nil {
			t.Fatal(err)
		}
	}
	target, err := os.Readlink(filepath.Join(string(d), "opt/cni/bin/bridge"))
	if err != nil || target != "/ref/bridge" {
		t.Errorf("link to %q, %v", target, err)
	}
}

func TestNodeIsBackWhenItSaysReadyWithItsNewBootID(t *testing.T) {
	node := func(status corev1.ConditionStatus, boot string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
		n.Status.NodeInfo.BootID = boot
		n.Status.Conditions = []corev1.NodeCondition{
			{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue},
			{Type: corev1.NodeReady, Status: status},
		}

		return n
	}

	for _, c := range []struct {
		node *corev1.Node
		want bool
	}{
		{node(corev1.ConditionTrue, "new"), true},
		{node(corev1.ConditionTrue, "old"), false},
		{node(corev1.ConditionFalse, "new"), false},
		{&corev1.Node{}, false},
	} {
		if got := readySince(c.node, "new"); got != c.want {
			t.Errorf("%+v: %v, want %v", c.node.Status, got, c.want)
		}
	}
}

func TestWaitEndsWithTheDaemonThatItIsFor(t *testing.T) {
	states := []machine.State{
		{Name: "etcd", Pid: 7},
		{Name: "kube-scheduler", Exit: "exit code 1"},
		{Name: "kube-apiserver", Exit: "signal killed"},
	}
	if s := ended(states, []string{"etcd", "kube-apiserver"}); s == nil || s.Name != "kube-apiserver" {
		t.Errorf("ended: %+v, want kube-apiserver", s)
	}
	if s := ended(states, []string{"etcd", "coredns"}); s != nil {
		t.Errorf("ended: %+v, want none", s)
	}
}
