package admit

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// asking is a pod that requests resources.
func asking(requests v1.ResourceList) *v1.Pod {
	container := v1.Container{Resources: v1.ResourceRequirements{Requests: requests}}
	return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{container}}}
}

func cpu(text string) *v1.Pod { return asking(v1.ResourceList{"cpu": resource.MustParse(text)}) }

// with changes a pod that asks for a CPU.
func with(change func(*v1.Pod)) *v1.Pod {
	pod := cpu("1")
	change(pod)
	return pod
}

// testNode has two CPUs, room for three pods, and a label.
func testNode() Node {
	return Node{
		Allocatable: v1.ResourceList{
			"cpu":               resource.MustParse("2"),
			"memory":            resource.MustParse("1Gi"),
			"ephemeral-storage": resource.MustParse("10Gi"),
			"pods":              resource.MustParse("3"),
		},
		Object: &v1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"zone": "a"}},
			Status: v1.NodeStatus{Allocatable: v1.ResourceList{
				"example.com/none-left": resource.MustParse("0"),
			}},
		},
		AllowedSysctls: []string{"kernel.msg*"},
		PodResources:   true,
	}
}

func sets(name string) *v1.PodSecurityContext {
	return &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: name, Value: "1"}}}
}

// admission is a pod and what becomes of it; both texts are empty for one that is admitted.
type admission struct {
	pod             *v1.Pod
	reason, message string
}

// check decides about each pod beside two that use half a CPU each.
func check(t *testing.T, all map[string]admission) {
	t.Helper()
	active := []*v1.Pod{cpu("500m"), cpu("500m")}
	for name, c := range all {
		verdict := Check(testNode(), c.pod, active)
		if verdict.Reason != c.reason || verdict.Message != c.message {
			t.Errorf("%s: %q %q, want %q %q", name, verdict.Reason, verdict.Message, c.reason, c.message)
		}
	}
}

func TestPodsThatDoNotFitAreRejectedWithKubeletsWords(t *testing.T) {
	check(t, map[string]admission{
		"fits": {cpu("1"), "", ""},
		"CPU": {cpu("1100m"), "OutOfcpu",
			"Node didn't have enough resource: cpu, requested: 1100, used: 1000, capacity: 2000"},
		"memory": {asking(v1.ResourceList{"memory": resource.MustParse("2Gi"),
			"ephemeral-storage": resource.MustParse("20Gi")}), "OutOfmemory",
			"Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824"},
		"disk": {asking(v1.ResourceList{"ephemeral-storage": resource.MustParse("20Gi")}),
			"OutOfephemeral-storage",
			"Node didn't have enough resource: ephemeral-storage, requested: 21474836480, used: 0, " +
				"capacity: 10737418240"},
		"no device left": {asking(v1.ResourceList{"example.com/none-left": resource.MustParse("1")}),
			"OutOfexample.com/none-left",
			"Node didn't have enough resource: example.com/none-left, requested: 1, used: 0, capacity: 0"},
		"the cluster's resource": {asking(v1.ResourceList{"example.com/license": resource.MustParse("1")}),
			"", ""},
		"no huge pages": {asking(v1.ResourceList{"hugepages-2Mi": resource.MustParse("2Mi")}),
			"OutOfhugepages-2Mi",
			"Node didn't have enough resource: hugepages-2Mi, requested: 2097152, used: 0, capacity: 0"},
	})

	full := []*v1.Pod{cpu("500m"), cpu("500m"), cpu("0")}
	got := Check(testNode(), cpu("0"), full)
	if got.Message != "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3" {
		t.Errorf("%+v", got)
	}
}

func TestPodsForAnotherNodeAreRejectedWithKubeletsWords(t *testing.T) {
	check(t, map[string]admission{
		"selector": {with(func(p *v1.Pod) { p.Spec.NodeSelector = map[string]string{"zone": "b"} }),
			"NodeAffinity",
			"Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		"other node": {with(func(p *v1.Pod) { p.Spec.NodeName = "m" }), "NodeName",
			"Predicate NodeName failed: node(s) didn't match the requested node name"},
		"other OS": {with(func(p *v1.Pod) { p.Spec.OS = &v1.PodOS{Name: v1.Windows} }), "PodOSNotSupported",
			"Failed to admit pod as the OS field doesn't match node OS"},
		"label of another OS": {with(func(p *v1.Pod) {
			p.Labels = map[string]string{v1.LabelOSStable: "windows"}
		}),
			"PodOSSelectorNodeLabelDoesNotMatch",
			"Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"},
		"strict groups": {with(func(p *v1.Pod) {
			strict := v1.SupplementalGroupsPolicyStrict
			p.Spec.SecurityContext = &v1.PodSecurityContext{SupplementalGroupsPolicy: &strict}
		}), "SupplementalGroupsPolicyNotSupported",
			"SupplementalGroupsPolicy=Strict is not supported in this node"},
	})
}

func TestSysctlsThatTheNodeMayNotSetAreRejectedWithKubeletsWords(t *testing.T) {
	check(t, map[string]admission{
		"safe sysctl": {with(func(p *v1.Pod) {
			p.Spec.SecurityContext = sets("net.ipv4.tcp_notsent_lowat")
		}), "", ""},
		"allowed sysctl": {with(func(p *v1.Pod) { p.Spec.SecurityContext = sets("kernel/msgmax") }), "", ""},
		"unsafe sysctl": {with(func(p *v1.Pod) { p.Spec.SecurityContext = sets("kernel/sem") }),
			"SysctlForbidden",
			`forbidden sysctl: "kernel.sem" not allowlisted`},
		"sysctl of the node's network": {with(func(p *v1.Pod) {
			p.Spec.HostNetwork = true
			p.Spec.SecurityContext = sets("net.ipv4.tcp_syncookies")
		}), "SysctlForbidden",
			`forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host Net enabled`},
		"sysctl of the node's IPC": {with(func(p *v1.Pod) {
			p.Spec.HostIPC = true
			p.Spec.SecurityContext = sets("kernel.msgmax")
		}),
			"SysctlForbidden", `forbidden sysctl: "kernel.msgmax" not allowed with host IPC enabled`},
	})
}

func TestPodsThatTheNodeCannotRunAreRejectedWithKubeletsWords(t *testing.T) {
	confined := &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeRuntimeDefault}
	check(t, map[string]admission{
		"AppArmor": {with(func(p *v1.Pod) {
			p.Spec.Containers[0].SecurityContext = &v1.SecurityContext{AppArmorProfile: confined}
		}), "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"},
		"undeclared feature": {with(restartAll), "PodFeatureUnsupported",
			"Pod requires node features that are not available: RestartAllContainersOnContainerExits"},
	})
}

// restartAll has the exit of a container restart all.
func restartAll(p *v1.Pod) {
	rule := v1.ContainerRestartRule{Action: v1.ContainerRestartRuleActionRestartAllContainers}
	p.Spec.Containers[0].RestartPolicyRules = []v1.ContainerRestartRule{rule}
}

func TestDeclaredFeaturesLetPodsIn(t *testing.T) {
	pod := with(restartAll)
	node := testNode()
	node.Features = []string{"RestartAllContainersOnContainerExits"}
	if got := Check(node, pod, nil); !got.Admitted() {
		t.Errorf("%+v", got)
	}
}

func TestNothingIsLetInByANodeThatIsNotKnown(t *testing.T) {
	node := testNode()
	node.Object = nil
	if got := Check(node, cpu("1"), nil); got.Reason != "InvalidNodeInfo" {
		t.Errorf("%+v", got)
	}
}

func TestTaintsAreForPodsOfTheAPI(t *testing.T) {
	node := testNode()
	node.Object.Spec.Taints = []v1.Taint{
		{Key: "k", Effect: v1.TaintEffectNoExecute},
		{Key: "s", Effect: v1.TaintEffectNoSchedule},
	}

	cases := map[string]struct {
		pod  *v1.Pod
		want string
	}{
		"api": {cpu("1"), "TaintToleration"},
		"tolerant": {with(func(p *v1.Pod) {
			p.Spec.Tolerations = []v1.Toleration{{Key: "k", Operator: v1.TolerationOpExists}}
		}), ""},
		"static": {with(func(p *v1.Pod) {
			p.Annotations = map[string]string{"kubernetes.io/config.source": "file"}
		}), ""},
		"of a source that there is not": {with(func(p *v1.Pod) {
			p.Annotations = map[string]string{"kubernetes.io/config.source": "mine"}
		}), "TaintToleration"},
	}

	for name, c := range cases {
		if got := Check(node, c.pod, nil); got.Reason != c.want {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
}

func TestAHostPortIsGivenOnce(t *testing.T) {
	port := func(ip string, protocol v1.Protocol, number int32) *v1.Pod {
		return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Ports: []v1.ContainerPort{{HostIP: ip,
			Protocol: protocol, HostPort: number}}}}}}
	}

	sidecar := func(policy *v1.ContainerRestartPolicy) *v1.Pod {
		return &v1.Pod{Spec: v1.PodSpec{InitContainers: []v1.Container{{RestartPolicy: policy,
			Ports: []v1.ContainerPort{{HostPort: 80}}}}}}
	}

	for name, c := range map[string]struct {
		have, want *v1.Pod
		taken      bool
	}{
		"same":                 {port("", v1.ProtocolTCP, 80), port("", v1.ProtocolTCP, 80), true},
		"TCP by default":       {port("", "", 80), port("0.0.0.0", v1.ProtocolTCP, 80), true},
		"other protocol":       {port("", v1.ProtocolUDP, 80), port("", v1.ProtocolTCP, 80), false},
		"other port":           {port("", "", 80), port("", "", 81), false},
		"all after one":        {port("192.0.2.1", "", 80), port("", "", 80), true},
		"one after all":        {port("", "", 80), port("192.0.2.1", "", 80), true},
		"two addresses":        {port("192.0.2.1", "", 80), port("192.0.2.2", "", 80), false},
		"one address":          {port("192.0.2.1", "", 80), port("192.0.2.1", "", 80), true},
		"no host port":         {port("", "", 0), port("", "", 0), false},
		"of a sidecar":         {sidecar(new(v1.ContainerRestartPolicyAlways)), port("", "", 80), true},
		"of an init container": {sidecar(nil), port("", "", 80), false},
	} {
		want := Verdict{}
		if c.taken {
			want = failed("NodePorts", "node(s) didn't have free ports for the requested pod ports")
		}

		got := Check(testNode(), c.want, []*v1.Pod{c.have})
		if got.Reason != want.Reason || got.Message != want.Message {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestPressureKeepsNewPodsAway(t *testing.T) {
	const memory, disk, pids = v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure
	bestEffort, burstable := asking(nil), cpu("1")
	tolerant := func(key string) *v1.Pod {
		pod := asking(nil)
		pod.Spec.Tolerations = []v1.Toleration{{Key: key, Operator: v1.TolerationOpExists}}
		return pod
	}

	important := asking(nil)
	important.Spec.Priority = new(int32(2_000_000_000))
	static := asking(nil)
	static.Annotations = map[string]string{"kubernetes.io/config.source": "file"}
	pretender := asking(nil)
	pretender.Annotations = map[string]string{"kubernetes.io/config.source": "mine"}

	for name, c := range map[string]struct {
		pod      *v1.Pod
		pressure []v1.NodeConditionType
		message  string
	}{
		"none": {bestEffort, nil, ""},
		"memory, best effort": {bestEffort, []v1.NodeConditionType{memory},
			"The node had condition: [MemoryPressure]. "},
		"memory, burstable": {burstable, []v1.NodeConditionType{memory}, ""},
		"memory, tolerated": {tolerant(v1.TaintNodeMemoryPressure),
			[]v1.NodeConditionType{memory}, ""},
		"memory, another one tolerated": {tolerant(v1.TaintNodeDiskPressure), []v1.NodeConditionType{memory},
			"The node had condition: [MemoryPressure]. "},
		"disk, burstable": {burstable, []v1.NodeConditionType{disk},
			"The node had condition: [DiskPressure]. "},
		"disk, tolerated": {tolerant(v1.TaintNodeDiskPressure), []v1.NodeConditionType{disk},
			"The node had condition: [DiskPressure]. "},
		"PIDs": {burstable, []v1.NodeConditionType{pids},
			"The node had condition: [PIDPressure]. "},
		"two": {burstable, []v1.NodeConditionType{disk, memory},
			"The node had condition: [DiskPressure MemoryPressure]. "},
		"critical": {important, []v1.NodeConditionType{disk, memory}, ""},
		"static":   {static, []v1.NodeConditionType{disk, memory}, ""},
		"of a source that there is not": {pretender, []v1.NodeConditionType{disk},
			"The node had condition: [DiskPressure]. "},
	} {
		node := testNode()
		node.Pressure = c.pressure
		got := Check(node, c.pod, nil)
		if got.Message != c.message || (got.Reason == "Evicted") != (c.message != "") {
			t.Errorf("%s: %+v, want %q", name, got, c.message)
		}
	}
}

func TestAppArmorProfilesNeedNames(t *testing.T) {
	node := testNode()
	node.AppArmor = true
	for name, c := range map[string]struct {
		profile v1.AppArmorProfile
		ok      bool
	}{
		"default":    {v1.AppArmorProfile{Type: v1.AppArmorProfileTypeRuntimeDefault}, true},
		"unconfined": {v1.AppArmorProfile{Type: v1.AppArmorProfileTypeUnconfined}, true},
		"named": {v1.AppArmorProfile{Type: v1.AppArmorProfileTypeLocalhost, LocalhostProfile: new("x")},
			true},
		"empty": {v1.AppArmorProfile{Type: v1.AppArmorProfileTypeLocalhost, LocalhostProfile: new(" ")},
			false},
	} {
		pod := cpu("1")
		pod.Spec.SecurityContext = &v1.PodSecurityContext{AppArmorProfile: &c.profile}
		if got := Check(node, pod, nil); got.Admitted() != c.ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
