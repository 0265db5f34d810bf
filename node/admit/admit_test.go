package admit

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func cpu(text string) *v1.Pod {
	return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Resources: v1.ResourceRequirements{Requests: v1.ResourceList{"cpu": resource.MustParse(text)}}}}}}
}

func TestPodsThatCannotRunAreRefusedWithKubeletsReasons(t *testing.T) {
	n := Node{Allocatable: v1.ResourceList{"cpu": resource.MustParse("2"), "pods": resource.MustParse("3")},
		Object:         &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"zone": "a"}}, Spec: v1.NodeSpec{Taints: []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoExecute}}}},
		AllowedSysctls: []string{"kernel.msg*"}}
	n.Object.Status.Allocatable = v1.ResourceList{"example.com/none-left": resource.MustParse("0")}
	tolerant := func(p *v1.Pod) *v1.Pod {
		p.Spec.Tolerations = []v1.Toleration{{Operator: v1.TolerationOpExists}}
		return p
	}
	with := func(mod func(*v1.PodSpec)) *v1.Pod { p := tolerant(cpu("1")); mod(&p.Spec); return p }
	others := []*v1.Pod{cpu("500m"), cpu("500m")}
	for name, c := range map[string]struct {
		pod  *v1.Pod
		want string
	}{
		"fits":         {tolerant(cpu("1")), ""},
		"too much CPU": {tolerant(cpu("1100m")), "OutOfcpu"},
		"no device left": {with(func(s *v1.PodSpec) {
			s.Containers[0].Resources.Requests["example.com/none-left"] = resource.MustParse("1")
		}), "OutOfexample.com/none-left"},
		"cluster resource": {with(func(s *v1.PodSpec) {
			s.Containers[0].Resources.Requests["example.com/license"] = resource.MustParse("1")
		}), ""},
		"no huge pages":     {with(func(s *v1.PodSpec) { s.Containers[0].Resources.Requests["hugepages-2Mi"] = resource.MustParse("2Mi") }), "OutOfhugepages-2Mi"},
		"taint":             {cpu("1"), "TaintToleration"},
		"other OS":          {with(func(s *v1.PodSpec) { s.OS = &v1.PodOS{Name: v1.Windows} }), "PodOSNotSupported"},
		"selector":          {with(func(s *v1.PodSpec) { s.NodeSelector = map[string]string{"zone": "b"} }), "NodeAffinity"},
		"safe sysctl":       {with(func(s *v1.PodSpec) { s.SecurityContext = sysctl("net.ipv4.tcp_syncookies") }), ""},
		"allowed sysctl":    {with(func(s *v1.PodSpec) { s.SecurityContext = sysctl("kernel.msgmax") }), ""},
		"unsafe sysctl":     {with(func(s *v1.PodSpec) { s.SecurityContext = sysctl("kernel.sem") }), "SysctlForbidden"},
		"host's net sysctl": {with(func(s *v1.PodSpec) { s.HostNetwork = true; s.SecurityContext = sysctl("net.ipv4.tcp_syncookies") }), "SysctlForbidden"},
		"user namespaces":   {with(func(s *v1.PodSpec) { s.HostUsers = new(false) }), "UnsupportedFeature"},
	} {
		t.Run(name, func(t *testing.T) {
			if reason, message := Check(n, c.pod, others); reason != c.want || (reason == "") != (message == "") {
				t.Errorf("%q %q, want %q", reason, message, c.want)
			}
		})
	}
	if reason, message := Check(n, tolerant(cpu("0")), append(others, cpu("0"))); reason != "OutOfpods" || !strings.Contains(message, "capacity: 3") {
		t.Errorf("%s %s", reason, message)
	}
}

func sysctl(name string) *v1.PodSecurityContext {
	return &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: name, Value: "1"}}}
}
