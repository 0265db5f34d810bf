package podcgroup_test

import (
	"path"
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
			cgroup.Limits{
				CPUShares: 1024,
				CPUQuota:  100_000,
				CPUPeriod: 100_000,
				Memory:    128 << 20,
			}},
		{"burstable", pod(
			full,
			v1.ResourceRequirements{},
		), v1.PodQOSBurstable, "/kubepods/burstable/pod12-34", "kubepods-burstable-pod12_34.slice",
			cgroup.Limits{CPUShares: 512}},
		{"best effort", pod(v1.ResourceRequirements{}), v1.PodQOSBestEffort, "/kubepods/besteffort/pod12-34", "kubepods-besteffort-pod12_34.slice",
			cgroup.Limits{CPUShares: 2}},
		{"only limits", pod(v1.ResourceRequirements{
			Limits: amounts("1", "1Mi"),
		}), v1.PodQOSGuaranteed, "/kubepods/pod12-34", "kubepods-pod12_34.slice",
			cgroup.Limits{
				CPUShares: 1024,
				CPUQuota:  100_000,
				CPUPeriod: 100_000,
				Memory:    1 << 20,
			}},
		{"only memory", pod(v1.ResourceRequirements{
			Limits: amounts("", "1Mi"),
		}), v1.PodQOSBurstable, "/kubepods/burstable/pod12-34", "kubepods-burstable-pod12_34.slice",
			cgroup.Limits{CPUShares: 2, Memory: 1 << 20}},
		{"CPU of one of two limited", pod(full, v1.ResourceRequirements{Limits: amounts("", "1Mi")}),
			v1.PodQOSBurstable, "/kubepods/burstable/pod12-34", "kubepods-burstable-pod12_34.slice",
			cgroup.Limits{CPUShares: 512, Memory: 65 << 20}},
		{"the pod as a whole", whole(pod(v1.ResourceRequirements{}), amounts("", "60Mi")), v1.PodQOSBurstable,
			"/kubepods/burstable/pod12-34", "kubepods-burstable-pod12_34.slice",
			cgroup.Limits{CPUShares: 2, Memory: 60 << 20}},
		{"a whole that leaves CPU to containers", whole(pod(full, full), amounts("", "60Mi")),
			v1.PodQOSBurstable, "/kubepods/burstable/pod12-34", "kubepods-burstable-pod12_34.slice",
			cgroup.Limits{
				CPUShares: 1024,
				CPUQuota:  100_000,
				CPUPeriod: 100_000,
				Memory:    60 << 20,
			}},
		{"a sidecar and overhead", sidecar(pod(full)), v1.PodQOSGuaranteed,
			"/kubepods/pod12-34", "kubepods-pod12_34.slice",
			cgroup.Limits{
				CPUShares: 1126,
				CPUQuota:  110_000,
				CPUPeriod: 100_000,
				Memory:    136 << 20,
			}},
	} {
		if got := criconfig.QOS(c.pod); got != c.qos {
			t.Errorf("%s: class %s", c.name, got)
		}

		for driver, want := range map[string]string{"cgroupfs": c.cgroupfs, "systemd": c.slices} {
			tree, err := podcgroup.New(podcgroup.Config{Host: &cgroup.Host{}, Driver: driver})
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

// whole gives the pod limits of its own.
func whole(p *v1.Pod, limits v1.ResourceList) *v1.Pod {
	p.Spec.Resources = &v1.ResourceRequirements{Limits: limits}
	return p
}

// sidecar gives the pod a second container for its whole life, and overhead.
func sidecar(p *v1.Pod) *v1.Pod {
	always := v1.ContainerRestartPolicyAlways
	like := p.Spec.Containers[0].Resources
	p.Spec.InitContainers = []v1.Container{{Resources: like, RestartPolicy: &always}}
	p.Spec.Overhead = amounts("100m", "8Mi")
	return p
}

func TestSlicesNestBelowARoot(t *testing.T) {
	const inKubelet = "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/" +
		"kubelet-kubepods-besteffort-pod12_34.slice"
	for root, want := range map[string]string{
		"":               "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod12_34.slice",
		"/kubelet":       inKubelet,
		"kubelet":        inKubelet,
		"/kubelet.slice": inKubelet,
		"/my-pods": "/my_pods.slice/my_pods-kubepods.slice/my_pods-kubepods-besteffort.slice/" +
			"my_pods-kubepods-besteffort-pod12_34.slice",
		"/a/b": "/a.slice/a-b.slice/a-b-kubepods.slice/a-b-kubepods-besteffort.slice/" +
			"a-b-kubepods-besteffort-pod12_34.slice",
		"/a.slice/a-b.slice": "/a.slice/a-b.slice/a-b-kubepods.slice/a-b-kubepods-besteffort.slice/" +
			"a-b-kubepods-besteffort-pod12_34.slice",
	} {
		tree, err := podcgroup.New(podcgroup.Config{Host: &cgroup.Host{}, Driver: "systemd", Root: root})
		if err != nil {
			t.Errorf("root %q: %v", root, err)
			continue
		}

		if got := tree.Group(pod(v1.ResourceRequirements{})); got != want {
			t.Errorf("root %q: %s, want %s", root, got, want)
		}
		if got, want := tree.Parent(pod(v1.ResourceRequirements{})), path.Base(want); got != want {
			t.Errorf("root %q: parent %s, want %s", root, got, want)
		}
	}
}

func TestWrongDriversAndRootsAreRefused(t *testing.T) {
	for _, cfg := range []podcgroup.Config{
		{Driver: "none"},
		{Driver: "systemd", Root: "/a b"},
		{Driver: "systemd", Root: "/a.slice/b.slice"},
		{Driver: "systemd", Root: "/x/a--b.slice"},
	} {
		if _, err := podcgroup.New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func TestWholeHasTheNodesProcesses(t *testing.T) {
	list := amounts("2", "1Gi")
	list[podcgroup.PIDs] = resource.MustParse("30000")
	want := cgroup.Limits{CPUShares: 2048, Memory: 1 << 30, PIDs: 30000}
	if d := cmp.Diff(want, podcgroup.Whole(list)); d != "" {
		t.Error(d)
	}
}

func TestHugePagesAreThoseThatThePodAsksFor(t *testing.T) {
	asked := amounts("1", "1Gi")
	asked["hugepages-2Mi"] = resource.MustParse("64Mi")
	got := podcgroup.Limits(pod(v1.ResourceRequirements{Requests: asked, Limits: asked}))
	if d := cmp.Diff(map[string]int64{"2MB": 64 << 20}, got.HugePages); d != "" {
		t.Error(d)
	}
}
