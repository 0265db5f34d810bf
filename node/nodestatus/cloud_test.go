package nodestatus

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestANodeOfACloudWaitsForIt(t *testing.T) {
	r := reporter(t, Config{
		Hostname:      "n",
		ProviderID:    "cloud://n",
		IPs:           []string{"192.0.2.7"},
		GivenIPs:      []string{"192.0.2.7", "2001:db8::7"},
		Taints:        []v1.Taint{{Key: "own", Effect: v1.TaintEffectNoExecute}},
		ExternalCloud: true,
	})

	node, err := r.initial(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	want := []v1.Taint{
		{Key: "own", Effect: v1.TaintEffectNoExecute},
		{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true",
			Effect: v1.TaintEffectNoSchedule},
	}
	if diff := cmp.Diff(want, node.Spec.Taints); diff != "" {
		t.Error(diff)
	}
	if got := node.Annotations["alpha.kubernetes.io/provided-node-ip"]; got != "192.0.2.7,2001:db8::7" {
		t.Errorf("provided addresses %q", got)
	}
	if node.Spec.ProviderID != "cloud://n" {
		t.Errorf("provider ID %q", node.Spec.ProviderID)
	}
}

func TestANodeWithoutACloudIsNeitherTaintedNorAnnotated(t *testing.T) {
	node, err := reporter(t, Config{GivenIPs: []string{"192.0.2.7"}}).initial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(node.Spec.Taints) > 0 || node.Annotations[providedIPs] != "" {
		t.Errorf("taints %v, annotations %v", node.Spec.Taints, node.Annotations)
	}
}

func TestAddressesAreTheCloudsOnceItHasSetThem(t *testing.T) {
	name := v1.NodeAddress{Type: v1.NodeHostName, Address: "n"}
	own := v1.NodeAddress{Type: v1.NodeInternalIP, Address: "192.0.2.7"}
	clouds := []v1.NodeAddress{{Type: v1.NodeExternalIP, Address: "198.51.100.1"}}
	for what, c := range map[string]struct {
		cfg  Config
		now  []v1.NodeAddress
		want []v1.NodeAddress
	}{
		"no cloud":      {Config{IPs: []string{"192.0.2.7"}}, clouds, []v1.NodeAddress{own, name}},
		"cloud has set": {Config{IPs: []string{"192.0.2.7"}, ExternalCloud: true}, clouds, clouds},
		"given": {Config{ExternalCloud: true, GivenIPs: []string{"192.0.2.7"}}, nil,
			[]v1.NodeAddress{own, name}},
		"cloud finds it": {Config{IPs: []string{"192.0.2.7"}, ExternalCloud: true}, nil,
			[]v1.NodeAddress{name}},
	} {
		c.cfg.Hostname = "n"
		if diff := cmp.Diff(c.want, c.cfg.addresses(c.now)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

func TestTheHintToACloudGoesWithTheCloud(t *testing.T) {
	have := &v1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{providedIPs: "192.0.2.7"}}}
	if !staleHint(have, &v1.Node{}) || staleHint(have, have) || staleHint(&v1.Node{}, &v1.Node{}) {
		t.Error("stale where it is not, or not where it is")
	}
	patch, err := metadataPatch(&v1.Node{}, true)
	want := `{"metadata":{"annotations":{"alpha.kubernetes.io/provided-node-ip":null},"labels":null}}`
	if err != nil || string(patch) != want {
		t.Errorf("%s, %v", patch, err)
	}
}
