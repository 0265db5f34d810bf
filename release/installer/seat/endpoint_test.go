package seat

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// node has files below a root of its own.
func node(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(root+path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func write(e endpoints, root string) error {
	changes, err := e.changes(root)
	for _, c := range changes {
		err = errors.Join(err, c.write())
	}
	return err
}

func TestEndpointsGoAndComeBack(t *testing.T) {
	for name, c := range map[string]struct {
		used  string
		files map[string]string
	}{
		"configuration of kubeadm": {
			used: "unix:///run/containerd/containerd.sock",
			files: map[string]string{
				agentConfig: "a: 1\n" +
					"containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock' # kind\nz: 1\n",
				instanceConfig: "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n",
			},
		},
		"flag of kubeadm, which wins": {
			used: "unix:///run/crio/crio.sock",
			files: map[string]string{
				agentConfig:  "containerRuntimeEndpoint: \"\"\n",
				kubeadmFlags: "ARGS=\"--x --container-runtime-endpoint=unix:///run/crio/crio.sock\"\n",
			},
		},
		"nothing": {
			used:  defaultEndpoint,
			files: map[string]string{agentConfig: "a: 1\n", extraFlags: "KUBELET_EXTRA_ARGS=--v=2\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := node(t, c.files)
			before, err := readEndpoints(root)
			if err != nil || before.used() != c.used {
				t.Fatalf("endpoints %q, %v, want %s", before, err, c.used)
			}

			for range 2 {
				if err := write(before.ours(), root); err != nil {
					t.Fatal(err)
				}
			}
			now, err := readEndpoints(root)
			if err != nil || !now.all(criEndpoint) {
				t.Errorf("endpoints %q, %v", now, err)
			}

			if err := write(before, root); err != nil {
				t.Fatal(err)
			}
			for path, want := range c.files {
				if got, err := readFile(root + path); err != nil || got != want {
					t.Errorf("%s is %q, %v, want %q", path, got, err, want)
				}
			}
		})
	}
}

// TestRuntimeComesBackWhereKubeadmHasMovedItsName is of an upgrade that makes a configuration of the flag.
func TestRuntimeComesBackWhereKubeadmHasMovedItsName(t *testing.T) {
	const crio = "unix:///run/crio/crio.sock"
	root := node(t, map[string]string{
		agentConfig:    "containerRuntimeEndpoint: " + criEndpoint + "\n",
		instanceConfig: "containerRuntimeEndpoint: " + criEndpoint + "\n",
		kubeadmFlags:   "ARGS=\"--x\"\n",
	})
	now, err := readEndpoints(root)
	if err != nil {
		t.Fatal(err)
	}

	before := endpoints{agentConfig: `""`, kubeadmFlags: crio}
	if err := write(before.back(now, crio), root); err != nil {
		t.Fatal(err)
	}
	got, err := readEndpoints(root)
	if err != nil || got.used() != crio || got.names(criEndpoint) || plain(got[instanceConfig]) != crio {
		t.Errorf("endpoints %q, %v", got, err)
	}
}

func TestNodeWithoutAConfigurationIsRefused(t *testing.T) {
	_, err := endpoints{}.ours().changes(t.TempDir())
	if err == nil || !strings.Contains(err.Error(), agentConfig) {
		t.Errorf("error %v", err)
	}
}

func TestConfigurationThatIsNotLinesIsLeftAsItIs(t *testing.T) {
	const text = "{\"kind\": \"KubeletConfiguration\",\n \"containerRuntimeEndpoint\": \"unix:///x\"}\n"
	root := node(t, map[string]string{agentConfig: text})
	_, err := endpoints{}.ours().changes(root)
	if err == nil || !strings.Contains(err.Error(), agentConfig) {
		t.Errorf("error %v", err)
	}
	if got, _ := readFile(root + agentConfig); got != text {
		t.Errorf("file %q", got)
	}
}

func FuzzWithKey(f *testing.F) {
	f.Add("a: 1\ncontainerRuntimeEndpoint: unix:///x\n")
	f.Fuzz(func(t *testing.T, text string) {
		once := withKey(text, criEndpoint, true)
		if twice := withKey(once, criEndpoint, true); twice != once {
			t.Errorf("%q, then %q", once, twice)
		}
	})
}
