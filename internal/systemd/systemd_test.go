package systemd_test

import (
	"path"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/systemd"
)

func TestSlicesAreWhereSystemdPutsThem(t *testing.T) {
	for name, want := range map[string]string{
		"kubepods.slice":   "/kubepods.slice",
		"a-b-pod1_2.slice": "/a.slice/a-b.slice/a-b-pod1_2.slice",
		"-.slice":          "/",
	} {
		if got, err := systemd.SlicePath(name); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
}

func TestNamesThatSystemdDoesNotTakeForSlicesAreRefused(t *testing.T) {
	for _, name := range []string{
		"",
		".slice",
		"kubepods",
		"a--b.slice",
		"-a.slice",
		"a-.slice",
		"a/b.slice",
		"../a.slice",
		"a b.slice",
		"kubepods.scope",
		"a\x00.slice",
		"é.slice",
		strings.Repeat("a", 250) + ".slice",
	} {
		if got, err := systemd.SlicePath(name); err == nil {
			t.Errorf("%q: taken for %s", name, got)
		}
	}
}

func FuzzSlicePath(f *testing.F) {
	f.Add("kubepods-burstable-pod1_2.slice")
	f.Add("../../x.slice")
	f.Fuzz(func(t *testing.T, name string) {
		group, err := systemd.SlicePath(name)
		if err == nil && (group != path.Clean(group) || !path.IsAbs(group)) {
			t.Errorf("%q: %q leads out of the hierarchy", name, group)
		}
	})
}
