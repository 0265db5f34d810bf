package nodeimage

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestContainerdOfNodesAsksMirrors(t *testing.T) {
	got, err := withMirrors("version = 2\n  restrict_oom_score_adj = false\n")
	if err != nil {
		t.Fatal(err)
	}

	want := "version = 2\n  restrict_oom_score_adj = true\n\n" +
		"[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestConfigurationOfAnotherVersionOfKindIsRefused(t *testing.T) {
	_, err := withMirrors("version = 3\n")
	if err == nil || !strings.Contains(err.Error(), "restrict_oom_score_adj") {
		t.Errorf("error %v", err)
	}
}

func TestBaseSpecHasKindsHookAndNoLimits(t *testing.T) {
	const spec = `{"linux":{"resources":{"devices":[{"major":18446744073709551615}]}},` +
		`"process":{"args":["sh"],"rlimits":[{"type":"RLIMIT_NOFILE"}]}}`
	got, err := withHook([]byte(spec))
	if err != nil {
		t.Fatal(err)
	}

	const want = `{"hooks":{"createContainer":[{"path":"/kind/bin/mount-product-files.sh"}]},` +
		`"linux":{"resources":{"devices":[{"major":18446744073709551615}]}},"process":{"args":["sh"]}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBaseSpecWithoutAProcessIsRefused(t *testing.T) {
	for _, spec := range []string{"", "[]", "null", `{"process":1}`} {
		if _, err := withHook([]byte(spec)); err == nil {
			t.Errorf("%q: no error", spec)
		}
	}
}

// modules is a directory as Go's cache of modules has it: nothing can be written or executed.
func modules(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestScriptsOfKindCanBeExecuted(t *testing.T) {
	tree, err := newTree(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}

	tree.copyAll(modules(t, "usr/local/bin/entrypoint", "kind/bin/hook.sh", "etc/crictl.yaml"))
	tree.write("kind/version", []byte("v1"), 0o644)
	if tree.err != nil {
		t.Fatal(tree.err)
	}

	for path, want := range map[string]fs.FileMode{
		"usr/local/bin/entrypoint": 0o755,
		"kind/bin/hook.sh":         0o755,
		"etc/crictl.yaml":          0o644,
		"kind/version":             0o644,
	} {
		info, err := os.Stat(filepath.Join(tree.dir, "root", path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestTreeIsMadeAgainAndLeavesItsSourcesAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "image")
	program := filepath.Join(modules(t, "program"), "program")
	for range 2 {
		tree, err := newTree(dir)
		if err != nil {
			t.Fatal(err)
		}

		tree.link(program, "usr/bin/program")
		tree.edit("usr/bin/missing", func(s string) (string, error) { return s, nil })
		if tree.err == nil || !strings.Contains(tree.err.Error(), "usr/bin/missing") {
			t.Errorf("error %v", tree.err)
		}
	}

	if data, err := os.ReadFile(program); err != nil || string(data) != "program" {
		t.Errorf("program: %q, %v", data, err)
	}
}

func TestLinkTakesThePlaceOfAFileOfKinds(t *testing.T) {
	tree, err := newTree(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}

	tree.write("usr/local/sbin/ctr", []byte("kind's"), 0o755)
	tree.symlink("/usr/local/bin/trivet-cri", "usr/local/sbin/ctr")
	if tree.err != nil {
		t.Fatal(tree.err)
	}
	to, err := os.Readlink(filepath.Join(tree.dir, "root/usr/local/sbin/ctr"))
	if to != "/usr/local/bin/trivet-cri" {
		t.Errorf("link to %q, %v", to, err)
	}
}

// Each file that is embedded is used by its name in a call.
func TestEmbeddedFilesAreThere(t *testing.T) {
	for _, name := range []string{
		"files/node.Dockerfile",
		"files/trivet-entrypoint",
		"files/trivet-node.conf",
		"files/default-storage.yaml",
	} {
		if _, err := files.ReadFile(name); err != nil {
			t.Error(err)
		}
	}
}
