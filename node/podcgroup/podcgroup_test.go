package podcgroup

import (
	"maps"
	"path"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/podspec"
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

var (
	full   = v1.ResourceRequirements{Requests: amounts("500m", "64Mi"), Limits: amounts("500m", "64Mi")}
	none   = v1.ResourceRequirements{}
	memory = v1.ResourceRequirements{Limits: amounts("", "1Mi")}
)

// period is that of quotas, in microseconds.
const period = cgroup.DefaultPeriod

// class is a pod with its quality of service and the limits of its group.
type class struct {
	pod    *v1.Pod
	tier   v1.PodQOSClass
	limits cgroup.Limits
}

// plainPods have resources of their containers alone.
func plainPods() map[string]class {
	return map[string]class{
		"guaranteed": {
			pod:  pod(full, full),
			tier: v1.PodQOSGuaranteed,
			limits: cgroup.Limits{
				CPUShares: 1024,
				CPUQuota:  period,
				CPUPeriod: period,
				Memory:    128 << 20,
			},
		},

		"burstable": {
			pod:    pod(full, none),
			tier:   v1.PodQOSBurstable,
			limits: cgroup.Limits{CPUShares: 512},
		},

		"best effort": {
			pod:    pod(none),
			tier:   v1.PodQOSBestEffort,
			limits: cgroup.Limits{CPUShares: 2},
		},

		"only limits": {
			pod:  pod(v1.ResourceRequirements{Limits: amounts("1", "1Mi")}),
			tier: v1.PodQOSGuaranteed,
			limits: cgroup.Limits{
				CPUShares: 1024,
				CPUQuota:  period,
				CPUPeriod: period,
				Memory:    1 << 20,
			},
		},
		"only memory": {
			pod:    pod(memory),
			tier:   v1.PodQOSBurstable,
			limits: cgroup.Limits{CPUShares: 2, Memory: 1 << 20},
		},

		"CPU of one of two limited": {
			pod:    pod(full, memory),
			tier:   v1.PodQOSBurstable,
			limits: cgroup.Limits{CPUShares: 512, Memory: 65 << 20},
		},
	}
}

// specialPods have resources of their own, or more than application containers.
func specialPods() map[string]class {
	return map[string]class{
		"the pod as a whole": {
			pod:    whole(pod(none), amounts("", "60Mi")),
			tier:   v1.PodQOSBurstable,
			limits: cgroup.Limits{CPUShares: 2, Memory: 60 << 20},
		},
		"a whole that leaves CPU to containers": {
			pod:  whole(pod(full, full), amounts("", "60Mi")),
			tier: v1.PodQOSBurstable,
			limits: cgroup.Limits{
				CPUShares: 1024,
				CPUQuota:  period,
				CPUPeriod: period,
				Memory:    60 << 20,
			},
		},

		"a sidecar and overhead": {
			pod:  sidecar(pod(full)),
			tier: v1.PodQOSGuaranteed,
			limits: cgroup.Limits{
				CPUShares: 1126,
				CPUQuota:  110_000,
				CPUPeriod: period,
				Memory:    136 << 20,
			},
		},
	}
}

func TestNamesAndLimitsFollowTheQualityOfService(t *testing.T) {
	all := plainPods()
	maps.Copy(all, specialPods())
	for name, c := range all {
		if d := cmp.Diff(c.limits, podLimits(c.pod)); d != "" {
			t.Errorf("%s: %s", name, d)
		}

		for driver, want := range parents[c.tier] {
			tree, err := New(Config{Host: &cgroup.Host{}, Driver: driver})
			if err != nil {
				t.Fatal(err)
			}
			if got := tree.Parent(c.pod); got != want {
				t.Errorf("%s with %s: %s, want %s", name, driver, got, want)
			}
		}
	}
}

// parents are the groups of pod 12-34 as runtimes want them named, by tier and driver.
var parents = map[v1.PodQOSClass]map[string]string{
	v1.PodQOSGuaranteed: {
		"cgroupfs": "/kubepods/pod12-34",
		"systemd":  "kubepods-pod12_34.slice",
	},
	v1.PodQOSBurstable: {
		"cgroupfs": "/kubepods/burstable/pod12-34",
		"systemd":  "kubepods-burstable-pod12_34.slice",
	},
	v1.PodQOSBestEffort: {
		"cgroupfs": "/kubepods/besteffort/pod12-34",
		"systemd":  "kubepods-besteffort-pod12_34.slice",
	},
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
		tree, err := New(Config{Host: &cgroup.Host{}, Driver: "systemd", Root: root})
		if err != nil {
			t.Errorf("root %q: %v", root, err)
			continue
		}

		if got := tree.group(pod(v1.ResourceRequirements{})); got != want {
			t.Errorf("root %q: %s, want %s", root, got, want)
		}
		if got, want := tree.Parent(pod(v1.ResourceRequirements{})), path.Base(want); got != want {
			t.Errorf("root %q: parent %s, want %s", root, got, want)
		}
	}
}

func TestWrongDriversAndRootsAreRefused(t *testing.T) {
	for _, cfg := range []Config{
		{Driver: "none"},
		{Driver: "systemd", Root: "/a b"},
		{Driver: "systemd", Root: "/a.slice/b.slice"},
		{Driver: "systemd", Root: "/x/a--b.slice"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func TestWholeHasTheNodesProcesses(t *testing.T) {
	list := amounts("2", "1Gi")
	list[PIDs] = resource.MustParse("30000")
	want := cgroup.Limits{CPUShares: 2048, Memory: 1 << 30, PIDs: 30000}
	if d := cmp.Diff(want, Whole(list)); d != "" {
		t.Error(d)
	}
}

func TestHugePagesAreThoseThatThePodAsksFor(t *testing.T) {
	asked := amounts("1", "1Gi")
	asked["hugepages-2Mi"] = resource.MustParse("64Mi")
	got := podLimits(pod(v1.ResourceRequirements{Requests: asked, Limits: asked}))
	if d := cmp.Diff(map[string]int64{"2MB": 64 << 20}, got.HugePages); d != "" {
		t.Error(d)
	}
}

func TestShareOfTheBurstableTierIsThatOfPodsThatHaveNotEnded(t *testing.T) {
	requesting := func(cpu string, phase v1.PodPhase) *v1.Pod {
		p := pod(v1.ResourceRequirements{Requests: amounts(cpu, "")})
		p.Status.Phase = phase
		return p
	}

	guaranteed := pod(v1.ResourceRequirements{Limits: amounts("4", "1Mi")})
	for name, c := range map[string]struct {
		pods []*v1.Pod
		want uint64
	}{
		"none": {[]*v1.Pod{guaranteed, pod(v1.ResourceRequirements{})}, 2},
		"two": {
			[]*v1.Pod{requesting("1", v1.PodRunning), guaranteed, requesting("500m", v1.PodPending)},
			1536,
		},
		"ended":   {[]*v1.Pod{requesting("8", v1.PodSucceeded), requesting("8", v1.PodFailed)}, 2},
		"too few": {[]*v1.Pod{requesting("1m", v1.PodRunning)}, 2},
	} {
		if got := balanceOf(c.pods, false); got != (balance{shares: c.want}) {
			t.Errorf("%s: %+v, want %d shares", name, got, c.want)
		}
	}
}

func TestMemoryOfTheTiersIsWhatTheirPodsRequest(t *testing.T) {
	pods := []*v1.Pod{
		pod(v1.ResourceRequirements{}),
		pod(v1.ResourceRequirements{Requests: amounts("1", "10Mi")}),
		pod(v1.ResourceRequirements{Requests: amounts("1", "20Mi"), Limits: amounts("2", "40Mi")}),
		pod(v1.ResourceRequirements{Requests: amounts("1", "5Mi"), Limits: amounts("1", "5Mi")}),
	}
	want := balance{
		shares:     2048,
		burstable:  30 << 20,
		guaranteed: 5 << 20,
	}
	if got := balanceOf(pods, true); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestMemoryOfAPodIsKeptByItsQualityOfService(t *testing.T) {
	burstable := pod(v1.ResourceRequirements{Requests: amounts("1", "8Mi"), Limits: amounts("2", "16Mi")})
	guaranteed := pod(v1.ResourceRequirements{Requests: amounts("1", "8Mi"), Limits: amounts("1", "8Mi")})
	whole := pod(v1.ResourceRequirements{})
	whole.Spec.Resources = &v1.ResourceRequirements{
		Requests: amounts("1", "8Mi"),
		Limits:   amounts("2", "16Mi"),
	}

	besteffort := pod(v1.ResourceRequirements{})
	processor := burstable.DeepCopy()
	processor.Spec.Resources = &v1.ResourceRequirements{Requests: v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("2"),
	}}

	eight, none := int64(8<<20), int64(0)
	kept := func(hard, soft *int64, high int64) cgroup.Limits {
		return cgroup.Limits{MemoryMin: hard, MemoryLow: soft, MemoryHigh: high}
	}
	tiered, throttled := podspec.MemoryQoS{Tiered: true}, podspec.MemoryQoS{Throttling: 0.5}
	for name, c := range map[string]struct {
		pod  *v1.Pod
		qos  podspec.MemoryQoS
		want cgroup.Limits
	}{
		"nothing is to be kept":              {burstable, podspec.MemoryQoS{}, kept(&none, &none, -1)},
		"burstable":                          {burstable, tiered, kept(&none, &eight, -1)},
		"guaranteed":                         {guaranteed, tiered, kept(&eight, &none, -1)},
		"best effort":                        {besteffort, tiered, kept(&none, &none, -1)},
		"its containers are throttled":       {burstable, throttled, kept(&none, &none, -1)},
		"the pod has a limit as a whole":     {whole, throttled, kept(&none, &none, 12<<20)},
		"as a whole it has CPU alone":        {processor, throttled, kept(&none, &none, 12<<20)},
		"whole, and guaranteed are not":      {guaranteed, throttled, kept(&none, &none, -1)},
		"the pod requests memory as a whole": {whole, tiered, kept(&none, &eight, -1)},
	} {
		got := cgroup.Limits{}
		keepMemory(&got, c.qos, c.pod)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
