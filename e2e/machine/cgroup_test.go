package machine

import (
	"slices"
	"testing"
)

func TestHierarchiesAreMountedAsTheHostHasThem(t *testing.T) {
	const own = "5:memory:/x\n4:cpu,cpuacct:/\n3:name=systemd:/\n0::/\n"
	const known = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t5\t1\t1\nhugetlb\t0\t1\t1\n"
	mounted := []hierarchy{
		{"memory", "memory"},
		{"cpu,cpuacct", "cpu,cpuacct"},
		{"none,name=systemd", "systemd"},
	}

	hugetlb := hierarchy{"hugetlb", "hugetlb"}
	for _, c := range []struct {
		name, own, known string
		want             []hierarchy
	}{
		{"hugetlb is not mounted", own, known, append(slices.Clone(mounted), hugetlb)},
		{"hugetlb is not known", own, "#subsys_name\nmemory\t5\t1\t1\n", mounted},
		{"hugetlb is mounted", "9:hugetlb:/\n" + own, known, append([]hierarchy{hugetlb}, mounted...)},
	} {
		if got := parseHierarchies(c.own, c.known); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestDefaultsOfTheEnvironmentGiveWayToADaemonsOwn(t *testing.T) {
	got := environment([]string{"PATH=/mine", "WHO=me"})
	want := []string{"PATH=/mine", "WHO=me", "HOME=/", "LANG=C.UTF-8"}
	if !slices.Equal(got, want) {
		t.Errorf("environment %v, want %v", got, want)
	}
}

func TestWordsOfAUnitAreQuoted(t *testing.T) {
	if got := quote(`a "b" \ %c`); got != `"a \"b\" \\ %%c"` {
		t.Errorf("quoted %s", got)
	}
}
