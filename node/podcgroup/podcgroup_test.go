package podcgroup_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/podcgroup"
)

func amounts(cpu, memory string) v1.ResourceList {
	out := v1.ResourceList{}
	if cpu != "" {
		out[v1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		out[v1.ResourceMemory] = resource.MustParse(memory)
	}
	return out
}

func pod(containers ...v1.ResourceRequirements) *v1.Pod {
	p := &v1.Pod{}
	p.UID = "12-34"
	for _, r := range containers {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Resources: r})
	}
	return p
}

func TestClassNameAndLimits(t *testing.T) {
	full := v1.ResourceRequirements{Requests: amounts("500m", "64Mi"), Limits: amounts("500m", "64Mi")}
	for _, c := range []struct {
		name             string
		pod              *v1.Pod
		qos              v1.PodQOSClass
		cgroupfs, slices string
		limits           cgroup.Limits
	}{
		{"guaranteed", pod(full, full), v1.PodQOSGuaranteed, "/kubepods/pod12-34", "kubepods-pod12_34.slice",
			cgroup.Limits{CPUShares: 1024, CPUQuota: 100_000, CPUPeriod: 100_000, Memory: 128 << 20}},
		{"burstable", pod(full, v1.ResourceRequirements{}), v1.PodQOSBurstable, "/kubepods/burstable/pod12-34", "kubepods-burstable-pod12_34.slice",
			cgroup.Limits{CPUShares: 512}},
		{"best effort", pod(v1.ResourceRequirements{}), v1.PodQOSBestEffort, "/kubepods/besteffort/pod12-34", "kubepods-besteffort-pod12_34.slice",
			cgroup.Limits{CPUShares: 2}},
		{"only limits", pod(v1.ResourceRequirements{Limits: amounts("1", "1Mi")}), v1.PodQOSGuaranteed, "/kubepods/pod12-34", "kubepods-pod12_34.slice",
			cgroup.Limits{CPUShares: 1024, CPUQuota: 100_000, CPUPeriod: 100_000, Memory: 1 << 20}},
		{"only memory", pod(v1.ResourceRequirements{Limits: amounts("", "1Mi")}), v1.PodQOSBurstable, "/kubepods/burstable/pod12-34", "kubepods-burstable-pod12_34.slice",
			cgroup.Limits{CPUShares: 2, Memory: 1 << 20}},
	} {
		if got := criconfig.QOS(c.pod); got != c.qos {
			t.Errorf("%s: class %s", c.name, got)
		}
		for driver, want := range map[string]string{"cgroupfs": c.cgroupfs, "systemd": c.slices} {
			tree, err := podcgroup.New(&cgroup.Host{}, "", driver)
			if err != nil {
				t.Fatal(err)
			}
			if got := tree.Parent(c.pod); got != want {
				t.Errorf("%s with %s: %s, want %s", c.name, driver, got, want)
			}
		}
		if d := cmp.Diff(c.limits, podcgroup.Limits(c.pod)); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestSlicesNestBelowARoot(t *testing.T) {
	tree, err := podcgroup.New(&cgroup.Host{}, "/kubelet.slice", "systemd")
	if err != nil {
		t.Fatal(err)
	}
	want := "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod12_34.slice"
	if got := tree.Group(pod(v1.ResourceRequirements{})); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, err := podcgroup.New(&cgroup.Host{}, "", "none"); err == nil {
		t.Error("an unknown driver is accepted")
	}
}
