package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

func TestFilesOfTheNodeAreReadAsTheyAreNow(t *testing.T) {
	root := t.TempDir()
	resolv, docker := filepath.Join(root, "resolv.conf"), filepath.Join(root, "config.json")
	files := hostFiles{resolver: resolv, root: root}
	if dns, err := files.dns(); err != nil || len(dns.Servers) > 0 {
		t.Errorf("no file: %v, %v", dns, err)
	}
	if data, err := files.pullSecrets(); err != nil || len(data) > 0 {
		t.Errorf("no file: %q, %v", data, err)
	}

	for _, version := range []string{"192.0.2.1", "192.0.2.2"} {
		for path, text := range map[string]string{resolv: "nameserver " + version + "\n", docker: version} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}

		if dns, err := files.dns(); err != nil || len(dns.Servers) != 1 || dns.Servers[0] != version {
			t.Errorf("resolver configuration %v, %v, want %s", dns, err, version)
		}
		if data, err := files.pullSecrets(); err != nil || string(data) != version {
			t.Errorf("pull secrets %q, %v, want %s", data, err, version)
		}
	}

	// Nobody writes to the pipe.
	pipe := filepath.Join(root, "pipe")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Remove(docker), os.Symlink(pipe, docker)); err != nil {
		t.Fatal(err)
	}
	if _, err := files.pullSecrets(); !errors.Is(err, boundedfile.ErrNotRegular) {
		t.Errorf("a pipe: %v", err)
	}
	if err := os.WriteFile(resolv, []byte(strings.Repeat("#", maxHostFile+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := files.dns(); err == nil {
		t.Error("a file without an end was read")
	}
	if err := files.check(); err == nil {
		t.Error("such files do not end the start")
	}
}

func TestWithoutAResolverConfigurationNothingOfTheNodesIsTaken(t *testing.T) {
	dns, err := hostFiles{root: t.TempDir()}.dns()
	if err != nil || len(dns.Servers) != 1 || dns.Servers[0] != "127.0.0.1" {
		t.Errorf("%v, %v", dns, err)
	}
}
