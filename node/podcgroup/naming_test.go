package podcgroup

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A group whose UID was read wrongly would be taken for that of a pod that has gone, and killed.
func TestUIDsAreReadFromNamesOnlyWhenThatIsSure(t *testing.T) {
	bySlice, err := newSlices("/kubelet")
	if err != nil {
		t.Fatal(err)
	}

	const prefix = "kubelet-kubepods-burstable-pod"

	// the UID of a static pod is a hash
	const static = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
	for dir, want := range map[string]types.UID{
		prefix + "0a1b2c3d_0000_4000_8000_0123456789ab.slice": "0a1b2c3d-0000-4000-8000-0123456789ab",
		prefix + static + ".slice":                            static,
		prefix + "my_static_pod.slice":                        "",
		prefix + ".slice":                                     "",
		prefix + "1-x.slice":                                  "",
		"kubepods-burstable-pod" + static + ".slice":          "",
		prefix + static + ".scope":                            "",
		"kubelet-kubepods-besteffort-pod" + static + ".slice": "",
	} {
		got, ok := bySlice.uid(dir, tier(v1.PodQOSBurstable))
		if ok != (want != "") || ok && got != want {
			t.Errorf("%s: %q, %v; want %q", dir, got, ok, want)
		}
	}
}

func TestUIDsThatLeadOutOfTheTreeAreRefused(t *testing.T) {
	tree, err := New(Config{Driver: "cgroupfs"})
	if err != nil {
		t.Fatal(err)
	}

	for _, uid := range []types.UID{"", "/../../../system.slice", "a/b"} {
		pod := &v1.Pod{}
		pod.UID = uid
		if err := tree.Ensure(t.Context(), pod); err == nil {
			t.Errorf("%q: a group was made", uid)
		}
		if err := tree.Remove(t.Context(), uid); err == nil {
			t.Errorf("%q: a group was removed", uid)
		}
	}
}
