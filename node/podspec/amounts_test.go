package podspec

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestALimitOfThePodIsThatOfContainersWithoutOne(t *testing.T) {
	pod := &v1.Pod{Spec: v1.PodSpec{
		Resources: &v1.ResourceRequirements{
			Requests: v1.ResourceList{"cpu": resource.MustParse("300m")},
			Limits:   v1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")},
		},
		Containers: []v1.Container{{Name: "a"}, {Name: "b", Resources: v1.ResourceRequirements{
			Requests: v1.ResourceList{"cpu": resource.MustParse("100m")},
			Limits:   v1.ResourceList{"cpu": resource.MustParse("200m")},
		}}},
	}}

	for i, want := range []Amounts{
		{CPULimit: 1000, MemoryLimit: 1 << 30},
		{CPURequest: 100, CPULimit: 200, MemoryLimit: 1 << 30},
	} {
		if got := AmountsOf(pod, &pod.Spec.Containers[i]); got != want {
			t.Errorf("container %d: %v, want %v", i, got, want)
		}
	}
}

func TestAmountsAreReadAsTheyAreWritten(t *testing.T) {
	want := Amounts{
		CPURequest:    1,
		CPULimit:      20,
		MemoryRequest: 300,
		MemoryLimit:   4 << 40,
	}
	if got, ok := ParseAmounts(want.String()); !ok || got != want {
		t.Errorf("%v, %t", got, ok)
	}

	for _, text := range []string{
		"",
		"cpu=1/2",
		"cpu=1/2 memory=3/4 ",
		"cpu=01/2 memory=3/4",
		want.String() + "0/",
	} {
		if got, ok := ParseAmounts(text); ok {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func FuzzParseAmounts(f *testing.F) {
	f.Add("cpu=1/2 memory=3/4")
	f.Add("cpu=-1/2 memory=3/9223372036854775808")
	f.Fuzz(func(t *testing.T, text string) {
		if a, ok := ParseAmounts(text); ok && a.String() != text {
			t.Errorf("%q is read as %v", text, a)
		}
	})
}
