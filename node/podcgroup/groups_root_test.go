package podcgroup

import (
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestGroupsOfPodsAreFoundByUID(t *testing.T) {
	host, root := ownRoot(t)
	tree, err := New(Config{Host: host, Root: root, Driver: "cgroupfs"})
	if err != nil {
		t.Fatal(err)
	}

	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}}
	if err := tree.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tree.Ensure(t.Context(), p); err != nil {
		t.Fatal(err)
	}

	groups, err := tree.Groups()
	if err != nil || len(groups) != 1 || groups["u"] != root+"/kubepods/besteffort/podu" {
		t.Errorf("%v, %v", groups, err)
	}

	want := []string{root + "/kubepods", root + "/kubepods/burstable", root + "/kubepods/besteffort"}
	if got := tree.Tiers(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
