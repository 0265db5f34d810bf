package hostsfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod(hostNetwork bool) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       v1.PodSpec{HostNetwork: hostNetwork},
	}
}

// write writes the file of a pod into dir and returns what is in it.
func write(t *testing.T, w Writer, dir string, pod *v1.Pod, ip string) (path, content string) {
	t.Helper()
	path, err := w.Write(dir, pod, []string{ip})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, string(data)
}

func TestThePodFindsItselfByItsName(t *testing.T) {
	path, content := write(t, Writer{}, filepath.Join(t.TempDir(), "pod"), pod(false), "10.0.0.2")
	if filepath.Base(path) != "etc-hosts" || !strings.Contains(content, "10.0.0.2\tweb") {
		t.Errorf("%s: %q", path, content)
	}
}

func TestAPodOnTheNodesNetworkHasTheNodesNames(t *testing.T) {
	dir := t.TempDir()
	node := filepath.Join(dir, "hosts")
	if err := os.WriteFile(node, []byte("192.0.2.7 printer\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{node: true, filepath.Join(dir, "none"): false} {
		_, content := write(t, Writer{NodeFile: file}, filepath.Join(dir, "pod"), pod(true), "192.0.2.1")
		if got := strings.Contains(content, "printer"); got != want {
			t.Errorf("with %s: %q", file, content)
		}
	}
}

// The file is mounted into containers: another file in its place would not be seen there.
func TestANewAddressIsWrittenInPlace(t *testing.T) {
	dir := t.TempDir()
	path, _ := write(t, Writer{}, dir, pod(false), "10.0.0.2")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}

	_, content := write(t, Writer{}, dir, pod(false), "10.0.0.3")
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || !strings.Contains(content, "10.0.0.3") {
		t.Errorf("same file %v, content %q", os.SameFile(before, after), content)
	}
}

func TestWhatAContainerMadeOfTheFileIsWrittenOver(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"a terabyte": func(path string) error { return os.Truncate(path, 1<<40) },
		"a link to a file of the node": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}

			return os.Symlink(filepath.Join(filepath.Dir(path), "secret"), path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			secret := filepath.Join(dir, "secret")
			if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}

			path, want := write(t, Writer{}, dir, pod(false), "10.0.0.2")
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			if _, got := write(t, Writer{}, dir, pod(false), "10.0.0.2"); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
				t.Errorf("the link was followed: %q, %v", data, err)
			}
		})
	}
}
