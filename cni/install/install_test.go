package install_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/cni/install"
)

// directory is one of plugins with upstream's bridge and a link of the administrator's.
func directory(t *testing.T) (d install.Directory, source string) {
	t.Helper()
	d = install.Directory{Path: t.TempDir(), Program: "trivet-cni"}
	source = filepath.Join(t.TempDir(), "program")
	write(t, source, "ours")
	write(t, filepath.Join(d.Path, "bridge"), "upstream's")
	if err := os.Symlink("bridge", filepath.Join(d.Path, "ptp")); err != nil {
		t.Fatal(err)
	}
	return d, source
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

// content is what a name leads to; "" for nothing.
func content(d install.Directory, name string) string {
	data, _ := os.ReadFile(filepath.Join(d.Path, name))
	return string(data)
}

var names = []string{"bridge", "portmap", "ptp"}

func TestUninstallRestoresWhatWasThere(t *testing.T) {
	d, source := directory(t)

	// A second call finds all done.
	for range 2 {
		if err := d.Install(source, names); err != nil {
			t.Fatal(err)
		}
		for _, name := range append(names, "trivet-cni") {
			if got := content(d, name); got != "ours" {
				t.Errorf("%s is %q", name, got)
			}
		}
	}

	if err := d.Uninstall(names); err != nil {
		t.Fatal(err)
	}

	for name, want := range map[string]string{
		"bridge":     "upstream's",
		"ptp":        "upstream's",
		"portmap":    "",
		"trivet-cni": "",
	} {
		if got := content(d, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	if target, err := os.Readlink(filepath.Join(d.Path, "ptp")); target != "bridge" {
		t.Errorf("the link leads to %q, %v", target, err)
	}

	entries, err := os.ReadDir(d.Path)
	if err != nil || len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// A package of the distribution was upgraded meanwhile.
func TestUninstallLeavesWhatSomebodyElseHasPutThere(t *testing.T) {
	d, source := directory(t)
	if err := d.Install(source, names); err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(d.Path, "bridge")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}

	write(t, path, "newer")
	if err := d.Uninstall(names); err != nil || content(d, "bridge") != "newer" {
		t.Errorf("%q, %v", content(d, "bridge"), err)
	}
}

func TestInstallAfterAnUpgradeKeepsTheNewerPlugin(t *testing.T) {
	d, source := directory(t)
	if err := d.Install(source, names); err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(d.Path, "bridge")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}

	write(t, path, "newer")
	write(t, source, "ours, too")
	if err := d.Install(source, names); err != nil || content(d, "bridge") != "ours, too" {
		t.Fatalf("%q, %v", content(d, "bridge"), err)
	}
	if err := d.Uninstall(names); err != nil || content(d, "bridge") != "newer" {
		t.Errorf("%q, %v", content(d, "bridge"), err)
	}
}

// The program that is in the directory already stays when names are taken back.
func TestTheProgramOfTheDirectoryIsNotCopied(t *testing.T) {
	d, _ := directory(t)
	own := filepath.Join(d.Path, "trivet-cni")
	write(t, own, "ours")
	if err := d.Install(own, names); err != nil {
		t.Fatal(err)
	}
	if err := d.Uninstall(names); err != nil || content(d, "trivet-cni") != "ours" {
		t.Errorf("%q, %v", content(d, "trivet-cni"), err)
	}
}
