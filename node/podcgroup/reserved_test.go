package podcgroup

import (
	"slices"
	"testing"

	"github.com/trivet-node/trivet/internal/cgroup"
)

func TestNamesOfReservedGroupsAreReadAsKubeletReadsThem(t *testing.T) {
	for _, c := range []struct {
		driver string
		name   string
		names  []string
		group  string
	}{
		{"cgroupfs", "/system", []string{"system"}, "/system"},
		{"cgroupfs", "system", []string{"system"}, "/system"},
		{"cgroupfs", "/a/b-c/", []string{"a", "b-c"}, "/a/b-c"},
		{"cgroupfs", "/../../etc", []string{"..", "..", "etc"}, "/etc"},
		{"systemd", "system", []string{"system"}, "/system.slice"},
		{"systemd", "/system.slice", []string{"system"}, "/system.slice"},
		{"systemd", "kube-daemons.slice", []string{"kube", "daemons"}, "/kube.slice/kube-daemons.slice"},
		{"systemd", "/kube.slice/kube-daemons.slice", []string{"kube", "daemons"},
			"/kube.slice/kube-daemons.slice"},
		{"systemd", "a_b.slice", []string{"a-b"}, "/a_b.slice"},
	} {
		tree := &Tree{cfg: Config{Driver: c.driver}}
		names := tree.reservedNames(c.name)
		group, err := tree.reservedGroup(names)
		if err != nil || !slices.Equal(names, c.names) || group != c.group {
			t.Errorf("%s, %q: %q at %s, %v; want %q at %s",
				c.driver, c.name, names, group, err, c.names, c.group)
		}
	}

	tree := &Tree{cfg: Config{Driver: "systemd"}}
	if err := tree.Enforce(t.Context(), "a--b", cgroup.Limits{}); err == nil {
		t.Error("a name that no slice can have is taken")
	}
}
