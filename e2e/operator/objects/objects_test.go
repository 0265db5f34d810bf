package objects_test

import (
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/e2e/operator/objects"
	"github.com/trivet-node/trivet/e2e/operator/v1alpha1"
)

func set() objects.Set {
	return objects.Set{
		Image: "etcd",
		Cluster: &v1alpha1.EtcdCluster{
			ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "shop", UID: "1"},
			Spec: v1alpha1.EtcdClusterSpec{
				Version: "3.6.1",
				Storage: v1alpha1.Storage{Size: resource.MustParse("1Gi")},
			},
		},
	}
}

func TestMemberThatJoinsKnowsAllOthersByName(t *testing.T) {
	pod := set().Pod("db-1", []string{"db-1", "db-0"}, false, false)
	args := strings.Join(pod.Spec.Containers[0].Args, " ")
	for _, want := range []string{
		"--name=db-1 ",
		"--initial-cluster=db-0=http://db-0.db-peers.shop.svc:2380,db-1=http://db-1.db-peers.shop.svc:2380 ",
		"--initial-cluster-state=existing ",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("%q is not in %s", want, args)
		}
	}
	if pod.Spec.Hostname+"."+pod.Spec.Subdomain != "db-1.db-peers" {
		t.Errorf("the pod is called %s.%s", pod.Spec.Hostname, pod.Spec.Subdomain)
	}
}

func TestVolumeThatIsBoundDecidesOnTheNode(t *testing.T) {
	if c := set().Pod("db-0", nil, true, true).Spec.TopologySpreadConstraints; c != nil {
		t.Errorf("the pod of a bound volume has the constraints %v", c)
	}
	if c := set().Pod("db-0", nil, true, false).Spec.TopologySpreadConstraints; len(c) != 1 {
		t.Errorf("the pod of a new volume has the constraints %v", c)
	}
}

func TestPodsOfJobsAreNoMembers(t *testing.T) {
	snapshot := &v1alpha1.EtcdSnapshot{
		ObjectMeta: metav1.ObjectMeta{Name: "monday", Namespace: "shop"},
		Spec:       v1alpha1.EtcdSnapshotSpec{Cluster: "db", Claim: "snapshots"},
		Status:     v1alpha1.EtcdSnapshotStatus{File: "monday.db"},
	}
	for _, job := range []*batchv1.Job{set().SnapshotJob(snapshot), set().RestoreJob("db-0", snapshot)} {
		for key, value := range set().Labels() {
			if job.Spec.Template.Labels[key] == value {
				t.Errorf("pods of %s have the label %s=%s", job.Name, key, value)
			}
		}
	}
}

func TestNothingRunsWithPrivileges(t *testing.T) {
	pod := set().Pod("db-0", nil, true, false)
	c := pod.Spec.Containers[0].SecurityContext
	if !*pod.Spec.SecurityContext.RunAsNonRoot || *c.AllowPrivilegeEscalation ||
		!slices.Contains(c.Capabilities.Drop, corev1.Capability("ALL")) {
		t.Errorf("pod %+v, container %+v", pod.Spec.SecurityContext, c)
	}
}

func TestAddressOfEitherFamilyIsOneOfAURL(t *testing.T) {
	for ip, want := range map[string]string{
		"10.0.0.1": "http://10.0.0.1:2379",
		"fd00::1":  "http://[fd00::1]:2379",
	} {
		if got := objects.ClientURL(ip); got != want {
			t.Errorf("%s: %s, want %s", ip, got, want)
		}
	}
}
