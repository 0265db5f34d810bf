package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestPackagesAreReadByDpkg(t *testing.T) {
	for _, deb := range files(t, "packages/*.deb") {
		name, rest, _ := strings.Cut(filepath.Base(deb), "_")
		number, arch, _ := strings.Cut(strings.TrimSuffix(rest, ".deb"), "_")
		want := name + " " + number + " " + arch
		got := output(t, nil, "dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Architecture}", deb)
		if got != want {
			t.Errorf("%s is of %q, want %q", deb, got, want)
		}

		root := t.TempDir()
		output(t, nil, "dpkg-deb", "--raw-extract", deb, filepath.Join(root, "x"))
		check := exec.Command("md5sum", "--check", "--quiet", "--strict", "DEBIAN/md5sums")
		check.Dir = filepath.Join(root, "x")
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: sums of files: %v: %s", deb, err, out)
		}
	}
}

func TestPackagesAreAsDebianWantsThem(t *testing.T) {
	lintian := testenv.Program(t, "lintian", "lintian")
	for _, deb := range files(t, "packages/*.deb") {
		out, err := exec.Command(lintian, "--allow-root", "--fail-on=error,warning", deb).CombinedOutput()
		if err != nil {
			t.Errorf("lintian %s: %v\n%s", filepath.Base(deb), err, out)
		}
	}
}

// TestUnitsAreUnderstoodBySystemd looks at each in the tree that its package unpacks to.
func TestUnitsAreUnderstoodBySystemd(t *testing.T) {
	analyze := testenv.Program(t, "systemd-analyze", "systemd")
	for _, deb := range files(t, "packages/*_amd64.deb") {
		name, _, _ := strings.Cut(filepath.Base(deb), "_")
		root := t.TempDir()
		output(t, nil, "dpkg-deb", "--extract", deb, root)
		addTargets(t, root)

		cmd := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", "--root="+root,
			name+".service")
		cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning")
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s.service: %v: %s", name, err, out)
		}
	}
}

// addTargets copies the units that are part of systemd, which ours refer to.
func addTargets(t *testing.T, root string) {
	t.Helper()
	for _, unit := range []string{
		"sysinit.target", "basic.target", "shutdown.target", "network-online.target", "multi-user.target",
		"local-fs.target", "system.slice",
	} {
		data, err := os.ReadFile("/lib/systemd/system/" + unit)
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(root, "lib/systemd/system", unit), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
