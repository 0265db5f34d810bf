package throttle

import (
	"slices"
	"testing"
)

func TestGroupsOfPodsAreFoundByKubeletsNames(t *testing.T) {
	cases := []struct {
		top  string
		want []string
	}{
		{"/kubepods", []string{
			"/kubepods/poda-1",
			"/kubepods/burstable/poda-1",
			"/kubepods/besteffort/poda-1",
		}},
		{"/kubelet/kubepods", []string{
			"/kubelet/kubepods/poda-1",
			"/kubelet/kubepods/burstable/poda-1",
			"/kubelet/kubepods/besteffort/poda-1",
		}},
		{"/kubepods.slice", []string{
			"/kubepods.slice/kubepods-poda_1.slice",
			"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_1.slice",
			"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-poda_1.slice",
		}},
		{"/kubelet.slice/kubelet-kubepods.slice", []string{
			"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-poda_1.slice",
			"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/" +
				"kubelet-kubepods-burstable-poda_1.slice",
			"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/" +
				"kubelet-kubepods-besteffort-poda_1.slice",
		}},
	}

	for _, c := range cases {
		if got := groupsOf(c.top, "a-1"); !slices.Equal(got, c.want) {
			t.Errorf("below %s: %q", c.top, got)
		}
	}
}

func TestTopsOfPods(t *testing.T) {
	for name, want := range map[string]bool{
		"kubepods":                      true,
		"kubepods.slice":                true,
		"kubelet-kubepods.slice":        true,
		"kubepods-besteffort.slice":     false,
		"kubepods-burstable-pod1.slice": false,
		"mykubepods":                    false,
		"system.slice":                  false,
	} {
		if got := isTop(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
