package cluster

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStripKeepsWhatRoutingNeeds(t *testing.T) {
	meta := metav1.ObjectMeta{
		Name:              "a",
		UID:               "1-2",
		ResourceVersion:   "7",
		CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0)),
	}

	node := &corev1.Node{ObjectMeta: *meta.DeepCopy(), Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24"}}
	node.Labels = map[string]string{"x": "y"}
	node.Status = corev1.NodeStatus{Images: []corev1.ContainerImage{{SizeBytes: 1}},
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "a"},
			{Type: corev1.NodeInternalIP, Address: "10.99.0.1"},
			{Type: corev1.NodeExternalIP, Address: "192.0.2.1"},
		}}

	got, err := strip(node)
	want := &corev1.Node{ObjectMeta: meta, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP,
			Address: "10.99.0.1"}}}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

func FuzzParseNode(f *testing.F) {
	f.Add("10.244.1.0/24", "10.99.0.2")
	f.Add("fd00:244::/64", "fd99::1%eth0")
	f.Add("::ffff:10.0.0.0/104", "::ffff:10.99.0.2")
	f.Add("0.0.0.0/0", "")
	f.Fuzz(func(t *testing.T, cidr, address string) {
		node, notes := parseNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"},
			Spec: corev1.NodeSpec{PodCIDRs: []string{cidr}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP,
				Address: address}}}})
		if len(node.PodCIDRs)+len(node.Addresses)+len(notes) != 2 {
			t.Fatalf("%+v, notes %q", node, notes)
		}
	})
}
