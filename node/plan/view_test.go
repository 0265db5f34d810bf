package plan

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestAPodHasOneAddressOfEachFamilyTheNodesFirst(t *testing.T) {
	var (
		onV4 = []string{"192.0.2.1"}
		onV6 = []string{"2001:db8::1", "192.0.2.1"}
	)

	for _, c := range []struct {
		what          string
		sandbox, node []string
		want          []string
	}{
		{"one", []string{"10.0.0.2"}, onV4, []string{"10.0.0.2"}},
		{"both", []string{"10.0.0.2", "fd00::2"}, onV4, []string{"10.0.0.2", "fd00::2"}},
		{
			"in the order of the plugin",
			[]string{"fd00::2", "10.0.0.2"},
			onV4,
			[]string{"10.0.0.2", "fd00::2"},
		},
		{"on a node of IPv6", []string{"10.0.0.2", "fd00::2"}, onV6, []string{"fd00::2", "10.0.0.2"}},
		{
			"two of a family",
			[]string{"10.0.0.2", "10.1.0.2", "fd00::2"},
			onV4,
			[]string{"10.0.0.2", "fd00::2"},
		},
		{"only the other family", []string{"fd00::2"}, onV4, []string{"fd00::2"}},
		{"another form", []string{"fd00:0::0002", "::ffff:10.0.0.2"}, nil, []string{"10.0.0.2", "fd00::2"}},
		{"no address", []string{"", "pod"}, onV4, nil},
		{"none", nil, onV4, nil},
	} {
		v := View{Pod: &v1.Pod{}, Sandbox: &Sandbox{Ready: true, IPs: c.sandbox}}
		if got := v.IPs(c.node); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v of %v on %v, want %v", c.what, got, c.sandbox, c.node, c.want)
		}
	}

	host := View{Pod: &v1.Pod{Spec: v1.PodSpec{HostNetwork: true}}}
	if got := host.IPs(onV6); !slices.Equal(got, onV6) {
		t.Errorf("a pod on the node's network has %v", got)
	}
}
