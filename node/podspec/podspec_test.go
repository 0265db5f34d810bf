package podspec_test

import (
	"iter"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/podspec"
)

func full() *v1.Pod {
	return &v1.Pod{Spec: v1.PodSpec{
		InitContainers: []v1.Container{
			{Name: "init"},
			{Name: "sidecar", RestartPolicy: new(v1.ContainerRestartPolicyAlways)},
		},
		Containers: []v1.Container{{Name: "app"}, {Name: "helper"}},
		EphemeralContainers: []v1.EphemeralContainer{
			{EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: "debug"}},
		},
	}}
}

func names(containers iter.Seq[*v1.Container]) []string {
	var out []string
	for c := range containers {
		out = append(out, c.Name)
	}
	return out
}

func TestContainersComeInTheOrderOfTheAPI(t *testing.T) {
	pod := full()
	for name, c := range map[string]struct {
		got  []string
		want []string
	}{
		"all":     {names(podspec.All(pod)), []string{"init", "sidecar", "app", "helper", "debug"}},
		"regular": {names(podspec.Regular(pod)), []string{"init", "sidecar", "app", "helper"}},
		"running": {names(podspec.Running(pod)), []string{"sidecar", "app", "helper"}},
		"none":    {names(podspec.All(&v1.Pod{})), nil},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A caller may stop after any container; the sequence does not go on then, which would panic.
func TestSequencesCanBeLeftAtAnyContainer(t *testing.T) {
	pod := full()
	for _, all := range []iter.Seq[*v1.Container]{
		podspec.All(pod), podspec.Regular(pod), podspec.Running(pod),
	} {
		for _, last := range names(all) {
			for c := range all {
				if c.Name == last {
					break
				}
			}
		}
	}
}

func TestContainersAreThePodsOwn(t *testing.T) {
	pod := full()
	for c := range podspec.All(pod) {
		c.Image = "changed"
	}
	if got := pod.Spec.EphemeralContainers[0].Image; got != "changed" {
		t.Errorf("the ephemeral container has image %q", got)
	}
	if got := pod.Spec.InitContainers[0].Image; got != "changed" {
		t.Errorf("the init container has image %q", got)
	}
}

func TestContainersAreFoundByName(t *testing.T) {
	pod := full()
	for _, name := range slices.Concat(names(podspec.All(pod))) {
		if c := podspec.Find(pod, name); c == nil || c.Name != name {
			t.Errorf("%s: found %v", name, c)
		}
	}
	if c := podspec.Find(pod, "other"); c != nil {
		t.Errorf("found %v", c)
	}
}

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

type resources = v1.ResourceRequirements

// withResources returns a pod whose containers have these resources.
func withResources(all ...resources) *v1.Pod {
	pod := &v1.Pod{}
	for _, r := range all {
		pod.Spec.Containers = append(pod.Spec.Containers, v1.Container{Resources: r})
	}
	return pod
}

func TestQualityOfServiceFollowsTheContainers(t *testing.T) {
	both := amounts("1", "1Gi")
	for name, c := range map[string]struct {
		containers []resources
		want       v1.PodQOSClass
	}{
		"nothing asked": {
			containers: []resources{{}},
			want:       v1.PodQOSBestEffort,
		},
		"amounts of zero are none": {
			containers: []resources{{Requests: amounts("0", "0")}},
			want:       v1.PodQOSBestEffort,
		},

		"limits equal requests": {
			containers: []resources{{Requests: both, Limits: both}},
			want:       v1.PodQOSGuaranteed,
		},
		"limits alone are requests as well": {
			containers: []resources{{Limits: both}},
			want:       v1.PodQOSGuaranteed,
		},

		"one of two without limits": {
			containers: []resources{{Limits: both}, {}},
			want:       v1.PodQOSBurstable,
		},
		"no limit of memory": {
			containers: []resources{{Limits: amounts("1", "")}},
			want:       v1.PodQOSBurstable,
		},
		"requests below limits": {
			containers: []resources{{Requests: amounts("500m", "1Gi"), Limits: both}},
			want:       v1.PodQOSBurstable,
		},
	} {
		if got := podspec.QOS(withResources(c.containers...)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestQualityOfServiceIsTheAPIsThenThePodsOwn(t *testing.T) {
	both := amounts("1", "1Gi")
	pod := withResources(resources{})
	pod.Spec.Resources = &resources{}
	if got := podspec.QOS(pod); got != v1.PodQOSBestEffort {
		t.Errorf("a pod that says nothing of itself: %s", got)
	}

	pod.Spec.Resources.Limits = both
	if got := podspec.QOS(pod); got != v1.PodQOSGuaranteed {
		t.Errorf("a pod with limits as a whole: %s", got)
	}

	pod.Status.QOSClass = v1.PodQOSBurstable
	if got := podspec.QOS(pod); got != v1.PodQOSBurstable {
		t.Errorf("a pod whose class the API shows: %s", got)
	}
}
