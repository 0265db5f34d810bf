package check

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// parts are the names of packages and images.
var parts = []string{"trivet-cri", "trivet-csi", "trivet-netd", "trivet-node"}

// dist is the directory that make dist has written.
func dist(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("TRIVET_DIST")
	if dir == "" {
		t.Skip("TRIVET_DIST names no directory of make dist: run make dist-check")
	}
	return dir
}

// version is what the files are of.
func version(t *testing.T) string {
	t.Helper()
	v := os.Getenv("TRIVET_VERSION")
	if v == "" {
		t.Fatal("TRIVET_VERSION is not set")
	}
	return v
}

// files are those that match a pattern below dist; there must be some.
func files(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dist(t), pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return found
}

// runner is the command that runs programs of an architecture, empty where the machine does by itself.
// Without any the test is skipped.
func runner(t *testing.T, arch string) []string {
	t.Helper()
	if arch == runtime.GOARCH {
		return nil
	}
	if qemu := os.Getenv("TRIVET_ARM64_RUNNER"); qemu != "" && arch == "arm64" {
		return []string{qemu}
	}
	testenv.Skip(t, "no program runs those of %s here (Debian package qemu-user-static)", arch)
	return nil
}

// output runs a program, and returns what it prints.
func output(t *testing.T, env []string, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(`{"cniVersion": "1.1.0"}`)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", command, err, out)
	}
	return string(out)
}

func TestSumsAreOfAllFiles(t *testing.T) {
	dir := dist(t)
	list, err := os.Open(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()

	summed := map[string]bool{"SHA256SUMS": true}
	for lines := bufio.NewScanner(list); lines.Scan(); {
		want, name, _ := strings.Cut(lines.Text(), "  ")
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}

		summed[name] = true
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s does not have the sum %s", name, want)
		}
	}

	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name, _ := filepath.Rel(dir, path); err == nil && !d.IsDir() && !summed[name] {
			t.Errorf("%s has no sum", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProgramsRun(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			command := runner(t, arch)
			for _, program := range files(t, "linux-"+arch+"/*") {
				name := filepath.Base(program)
				want := name + " " + version(t) + "\n"
				args, env := []string{"--version"}, []string(nil)
				if name == "trivet-cni" {
					// A plugin is asked over its protocol (CNI 1.1, section 2).
					args, env = nil, []string{"CNI_COMMAND=VERSION"}
					want = `"supportedVersions"`
				}

				run := slices.Concat(command, []string{program}, args)
				if out := output(t, env, run...); !strings.Contains(out, want) {
					t.Errorf("%s prints %q, want %q", name, out, want)
				}
			}
		})
	}
}
