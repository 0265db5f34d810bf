package cluster

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSlimKeepsWhatRoutingNeeds(t *testing.T) {
	meta := metav1.ObjectMeta{
		Name:              "a",
		UID:               "1-2",
		ResourceVersion:   "7",
		CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0)),
	}

	node := &corev1.Node{ObjectMeta: *meta.DeepCopy(), Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24"}}
	node.Labels = map[string]string{"x": "y"}
	node.Status.Images = []corev1.ContainerImage{{SizeBytes: 1}}
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "a"},
		{Type: corev1.NodeInternalIP, Address: "10.99.0.1"},
		{Type: corev1.NodeExternalIP, Address: "192.0.2.1"},
	}

	want := &corev1.Node{ObjectMeta: meta}
	want.Spec.PodCIDRs = []string{"10.244.0.0/24"}
	want.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.99.0.1"}}
	// A Watch may slim an object twice.
	for range 2 {
		slim(node)
		if d := cmp.Diff(want, node); d != "" {
			t.Error(d)
		}
	}
}

func TestWhatCannotBeParsedIsLeftOutAndNamed(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}}
	node.Spec.PodCIDRs = []string{"10.244.1.7/24", "nonsense", "::ffff:10.0.0.0/104"}
	node.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: "fe80::1%eth0"},
		{Type: corev1.NodeInternalIP, Address: "nowhere"},
		{Type: corev1.NodeExternalIP, Address: "also nowhere"},
	}

	parsed, notes := parseNode(node)
	if len(parsed.PodCIDRs) != 1 || parsed.PodCIDRs[0].String() != "10.244.1.0/24" ||
		len(parsed.Addresses) != 1 || parsed.Addresses[0].String() != "fe80::1" {
		t.Errorf("%+v", parsed)
	}

	want := []string{
		`node b: pod CIDR "nonsense": netip.ParsePrefix("nonsense"): no '/'`,
		`node b: pod CIDR "::ffff:10.0.0.0/104": an IPv4 network in IPv6 form`,
		`node b: InternalIP "nowhere": ParseAddr("nowhere"): unable to parse IP`,
	}
	if d := cmp.Diff(want, notes); d != "" {
		t.Error(d)
	}
}

func FuzzParseNode(f *testing.F) {
	f.Add("10.244.1.0/24", "10.99.0.2")
	f.Add("fd00:244::/64", "fd99::1%eth0")
	f.Add("::ffff:10.0.0.0/104", "::ffff:10.99.0.2")
	f.Add("0.0.0.0/0", "")
	f.Fuzz(func(t *testing.T, cidr, address string) {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}}
		n.Spec.PodCIDRs = []string{cidr}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}
		node, notes := parseNode(n)
		if len(node.PodCIDRs)+len(node.Addresses)+len(notes) != 2 {
			t.Fatalf("%+v, notes %q", node, notes)
		}
	})
}
