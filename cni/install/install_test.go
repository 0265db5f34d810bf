package install_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/cni/install"
	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/program"
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

// Between putting back the program that was there and forgetting that there was a copy, Uninstall was killed.
// What a call that was killed has left, the next one removes, whichever it is.
func TestUnfinishedFilesAreRemoved(t *testing.T) {
	d, source := directory(t)
	for name, call := range map[string]func() error{
		"install":   func() error { return d.Install(source, names) },
		"uninstall": func() error { return d.Uninstall(names) },
	} {
		left := []string{
			".tmp-trivet-cni-1",
			".trivet-cni-replaced/.tmp-.copied-1",
			".trivet-cni-replaced/.new-gone",
		}
		for _, file := range left {
			path := filepath.Join(d.Path, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, path, "half")
		}

		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, file := range left {
			if got := content(d, file); got != "" {
				t.Errorf("after %s %s is there", name, file)
			}
		}
	}
}

func TestUninstallAfterAKillLeavesTheProgramThatWasThere(t *testing.T) {
	d, source := directory(t)
	write(t, filepath.Join(d.Path, "trivet-cni"), "somebody's")
	if err := d.Install(source, names); err != nil {
		t.Fatal(err)
	}

	copied := filepath.Join(d.Path, ".trivet-cni-replaced", ".copied")
	sum, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Uninstall(names); err != nil || content(d, "trivet-cni") != "somebody's" {
		t.Fatalf("%q, %v", content(d, "trivet-cni"), err)
	}

	if err := os.Mkdir(filepath.Dir(copied), 0o755); err != nil {
		t.Fatal(err)
	}

	write(t, copied, string(sum))
	if err := d.Uninstall(names); err != nil || content(d, "trivet-cni") != "somebody's" {
		t.Errorf("%q, %v", content(d, "trivet-cni"), err)
	}
}

// An upgrade keeps what was there before the first version, also when it was killed before its copy.
func TestAnUpgradeIsNotWhatWasThere(t *testing.T) {
	d, source := directory(t)
	own := filepath.Join(d.Path, "trivet-cni")
	write(t, own, "somebody's")
	for _, version := range []string{"1", "2"} {
		write(t, source, version)
		if err := d.Install(source, names); err != nil {
			t.Fatal(err)
		}
	}

	write(t, own, "1")
	write(t, source, "3")
	if err := d.Install(source, names); err != nil || content(d, "bridge") != "3" {
		t.Fatalf("%q, %v", content(d, "bridge"), err)
	}
	if err := d.Uninstall(names); err != nil || content(d, "trivet-cni") != "somebody's" {
		t.Errorf("%q, %v", content(d, "trivet-cni"), err)
	}
}

// An earlier version of Install has copied the program, and kept no sum of it.
func TestTheCopyOfAnEarlierVersionIsNotWhatWasThere(t *testing.T) {
	d, source := directory(t)
	write(t, filepath.Join(d.Path, "trivet-cni"), "somebody's")
	if err := d.Install(source, names); err != nil {
		t.Fatal(err)
	}

	write(t, filepath.Join(d.Path, ".trivet-cni-replaced", ".copied"), "")
	write(t, source, "newer")
	if err := d.Install(source, names); err != nil || content(d, "bridge") != "newer" {
		t.Fatalf("%q, %v", content(d, "bridge"), err)
	}
	if err := d.Uninstall(names); err != nil || content(d, "trivet-cni") != "somebody's" {
		t.Errorf("%q, %v", content(d, "trivet-cni"), err)
	}
}

func TestOneProcessChangesADirectory(t *testing.T) {
	d, source := directory(t)
	kept := filepath.Join(d.Path, ".trivet-cni-replaced")
	if err := os.Mkdir(kept, 0o755); err != nil {
		t.Fatal(err)
	}

	other, err := lockfile.Take(context.Background(), filepath.Join(kept, ".lock"), "the test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()

	for _, err := range []error{d.Install(source, names), d.Uninstall(names)} {
		if err == nil || !strings.Contains(err.Error(), d.Path) {
			t.Error(err)
		}
	}
}

func TestWhatWasThereSurvivesManyAtOnce(t *testing.T) {
	d, source := directory(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5 {
				for _, err := range []error{d.Install(source, names), d.Uninstall(names)} {
					var busy *program.CantRunError
					if err != nil && !errors.As(err, &busy) {
						t.Error(err)
					}
				}
			}
		})
	}

	all.Wait()
	if err := d.Uninstall(names); err != nil || content(d, "bridge") != "upstream's" {
		t.Errorf("%q, %v", content(d, "bridge"), err)
	}
}
