package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// BusyboxRoot fills dir with the root of a small system: busybox under the names of all its applets, and
// mount points. If the host's busybox is linked dynamically, as that of one of Debian's packages, its
// libraries are copied as well.
func BusyboxRoot(tb testing.TB, dir string) {
	tb.Helper()
	busybox := Program(tb, "busybox", "busybox-static")
	files := map[string]string{"/bin/busybox": busybox}

	// It fails for a program that is not linked dynamically.
	linked, _ := exec.Command("ldd", busybox).Output()
	for field := range strings.FieldsSeq(string(linked)) {
		if strings.HasPrefix(field, "/") {
			files[field] = field
		}
	}

	for path, source := range files {
		data, err := os.ReadFile(source)
		if err != nil {
			tb.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), data, 0o755); err != nil {
			tb.Fatal(err)
		}
	}

	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		tb.Fatal(err)
	}

	for applet := range strings.FieldsSeq(string(applets)) {
		if applet == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
			tb.Fatal(err)
		}
	}

	for _, d := range []string{"proc", "dev", "sys", "tmp", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
}
