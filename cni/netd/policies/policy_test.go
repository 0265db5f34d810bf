package policies

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
)

func convert(t *testing.T, spec string) *policy.Policy {
	t.Helper()
	o := &networkingv1.NetworkPolicy{}
	o.Namespace, o.Name = "ns", "p"
	if err := json.Unmarshal([]byte(spec), &o.Spec); err != nil {
		t.Fatal(err)
	}
	return Convert(o)
}

func TestPolicyTypesAreFilledInAsTheAPIServerDoes(t *testing.T) {
	for spec, want := range map[string][2]bool{
		`{}`:                                   {true, false},
		`{"egress":[{}]}`:                      {true, true},
		`{"policyTypes":["Egress"]}`:           {false, true},
		`{"policyTypes":["Ingress"]}`:          {true, false},
		`{"policyTypes":["Ingress","Egress"]}`: {true, true},
		`{"policyTypes":["Ingress"],"egress":[{"ports":[{}]}]}`: {true, false},
	} {
		if p := convert(t, spec); p.Isolates != want || p.Refused != "" {
			t.Errorf("%s: %v %s", spec, p.Isolates, p.Refused)
		}
	}
}

func TestRulesAreReadAsTheyAreMeant(t *testing.T) {
	p := convert(t, `{"podSelector":{"matchLabels":{"app":"a"}},"ingress":[{
		"from":[{"podSelector":{}},{"namespaceSelector":{}},
			{"ipBlock":{"cidr":"10.1.2.3/8","except":["10.2.0.0/16"]}},{}],
		"ports":[{"port":80},{"port":"web","protocol":"UDP"},
			{"port":8000,"endPort":8010},{"protocol":"SCTP"}]}]}`)
	if p.Refused != "" || p.Pods.String() != "app=a" || len(p.Rules[policy.Ingress]) != 1 {
		t.Fatalf("%+v", p)
	}

	r := p.Rules[policy.Ingress][0]
	own, all, block, nothing := r.Peers[0], r.Peers[1], r.Peers[2], r.Peers[3]
	switch {
	case own.Namespaces != nil || !own.Pods.Empty():
		t.Errorf("pods of the own namespace: %+v", own)
	case all.Namespaces == nil || !all.Namespaces.Empty() || !all.Pods.Empty():
		t.Errorf("pods of all namespaces: %+v", all)
	case block.Block.String() != "10.0.0.0/8" || block.Except[0].String() != "10.2.0.0/16":
		t.Errorf("a block: %+v", block)
	case nothing.Pods.Matches(nil):
		t.Errorf("a peer that is empty: %+v", nothing)
	}

	want := []policy.Port{
		{Protocol: 6, First: 80, Last: 80},
		{Protocol: 17, Name: "web"},
		{Protocol: 6, First: 8000, Last: 8010},
		policy.AnyPort(132),
	}
	for i, port := range r.Ports {
		if port != want[i] {
			t.Errorf("port %+v, want %+v", port, want[i])
		}
	}
}

// What is not understood must not allow more than what is.
func TestAPolicyThatCannotBeReadAllowsNothingAndSaysWhy(t *testing.T) {
	many := strings.Repeat(`{"port":1},`, maxParts+1)
	for spec, why := range map[string]string{
		`{"ingress":[{"from":[{"ipBlock":{"cidr":"nonsense"}}]}]}`:            "nonsense",
		`{"ingress":[{"from":[{"ipBlock":{"cidr":"::ffff:10.0.0.0/104"}}]}]}`: "IPv6 form",
		`{"ingress":[{"ports":[{"protocol":"ICMP"}]}]}`:                       "ICMP",
		`{"ingress":[{"ports":[{"port":9,"endPort":8}]}]}`:                    "9 to 8",
		`{"ingress":[{"ports":[{"port":70000}]}]}`:                            "70000",
		`{"podSelector":{"matchExpressions":[{"key":"a","operator":"Odd"}]}}`: "Odd",
		`{"ingress":[{"ports":[` + strings.TrimSuffix(many, ",") + `]}]}`:     "more than 3000",
		`{"podSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["v"` +
			strings.Repeat(`,"v"`, maxParts) + `]}]}}`: "more than 3000",
		`{"ingress":[{"from":[{"namespaceSelector":{"matchExpressions":[{"key":"a","operator":"Exists"}` +
			strings.Repeat(`,{"key":"a","operator":"Exists"}`, maxParts) + `]}}]}]}`: "more than 3000",
	} {
		p := convert(t, spec)
		if !strings.Contains(p.Refused, why) || len(p.Rules[0]) > 0 || !p.Isolates[policy.Ingress] ||
			p.Pods == nil {
			t.Errorf("%.80s: refused %q, %d rules", spec, p.Refused, len(p.Rules[0]))
		}
	}
}

// The kinds of peers that a newer API may have are nobody, also beside a peer that is everybody.
func TestAPeerOfAnUnknownKindAllowsNobody(t *testing.T) {
	for _, other := range []string{`{"podSelector":{}}`, `{"ipBlock":{"cidr":"192.0.2.1/32"}}`} {
		known := convert(t, `{"podSelector":{"matchLabels":{"a":"b"}},"ingress":[{"from":[`+other+`]}]}`)
		unknown := convert(t, `{"ingress":[{"from":[{}]}]}`)
		unknown.Name = "unknown"
		c := policy.Cluster{Policies: []*policy.Policy{known, unknown}}
		for i, set := range []labels.Set{{}, {"a": "b"}} {
			c.Pods = append(c.Pods, &policy.Pod{
				Namespace: "ns",
				Name:      fmt.Sprint("pod", i),
				Labels:    set,
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})},
				Local:     true,
			})
		}

		s := policy.NewCompiler().Compile(c)
		p := s.Profiles[s.Numbers[policy.Ingress][c.Pods[0].Addresses[0]]]
		if p == nil || p.Any != "" || len(p.Peers)+len(p.Blocks) != 0 {
			t.Errorf("beside %s it allows %+v", other, p)
		}
	}
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte(`{"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}]}]}`))
	f.Add([]byte(`{"egress":[{"ports":[{"port":"a","protocol":"UDP"},{"port":1,"endPort":2}]}]}`))
	f.Fuzz(func(_ *testing.T, spec []byte) {
		o := &networkingv1.NetworkPolicy{}
		if json.Unmarshal(spec, &o.Spec) != nil {
			return
		}
		p := Convert(o)
		policy.NewCompiler().Compile(policy.Cluster{
			Policies: []*policy.Policy{p},
			Pods:     []*policy.Pod{{Namespace: p.Namespace, Name: "a", Local: true}},
		})
	})
}

func TestOnlyPodsWithANetworkOfTheirOwnCount(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *corev1.Pod {
		o := &corev1.Pod{}
		o.Status.PodIPs = []corev1.PodIP{{IP: "10.1.0.1"}, {IP: "fd00::1"}, {IP: "nonsense"}}
		o.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "hash", "other": "x"}
		o.Spec.Containers = []corev1.Container{{
			Image: "i",
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80, Protocol: corev1.ProtocolTCP}, {}},
		}, {Image: "j"}}
		change(o)
		slimPod(o)
		return o
	}

	p, ok := convertPod(pod(func(*corev1.Pod) {}))
	if !ok || len(p.Addresses) != 2 || len(p.Ports) != 1 || p.Ports[0].Number != 80 || !p.Is("", "", "hash") {
		t.Errorf("%+v", p)
	}
	for what, change := range map[string]func(*corev1.Pod){
		"in the node's network": func(o *corev1.Pod) { o.Spec.HostNetwork = true },
		"ended":                 func(o *corev1.Pod) { o.Status.Phase = corev1.PodSucceeded },
		"failed":                func(o *corev1.Pod) { o.Status.Phase = corev1.PodFailed },
	} {
		if _, ok := convertPod(pod(change)); ok {
			t.Errorf("a pod %s counts", what)
		}
	}

	slim := pod(func(*corev1.Pod) {})
	if len(slim.Annotations) != 1 || len(slim.Spec.Containers) != 1 || slim.Spec.Containers[0].Image != "" {
		t.Errorf("kept is %+v", slim)
	}
}

func TestOnlyPortsOfContainersThatGoOnHaveNames(t *testing.T) {
	container := func(restarts *corev1.ContainerRestartPolicy, name string, number int32) corev1.Container {
		port := corev1.ContainerPort{Name: name, ContainerPort: number, Protocol: corev1.ProtocolTCP}
		return corev1.Container{RestartPolicy: restarts, Ports: []corev1.ContainerPort{port}}
	}
	o := &corev1.Pod{}
	o.Spec.InitContainers = []corev1.Container{
		container(nil, "setup", 1),
		container(new(corev1.ContainerRestartPolicyAlways), "proxy", 2),
		container(new(corev1.ContainerRestartPolicyOnFailure), "retried", 3),
	}
	o.Spec.Containers = []corev1.Container{container(nil, "web", 4), container(nil, "web", 4)}

	want := []policy.NamedPort{{Name: "web", Protocol: 6, Number: 4}, {Name: "proxy", Protocol: 6, Number: 2}}
	for range 2 {
		if p, _ := convertPod(o); !slices.Equal(p.Ports, want) {
			t.Errorf("ports %+v", p.Ports)
		}
		slimPod(o)
	}

	for i := range int32(3 * maxPorts) {
		o.Spec.Containers = append(o.Spec.Containers, container(nil, fmt.Sprint("p", i), i))
	}
	if p, _ := convertPod(o); len(p.Ports) != maxPorts {
		t.Errorf("%d ports", len(p.Ports))
	}
}
