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
	a := &Agent{}
	a.cfg.RootDir = t.TempDir()
	resolv, docker := filepath.Join(a.cfg.RootDir, "resolv.conf"), filepath.Join(a.cfg.RootDir, "config.json")
	a.cfg.Kubelet.ResolverConfig = &resolv
	if dns, err := a.hostDNS(); err != nil || len(dns.Servers) > 0 {
		t.Errorf("no file: %v, %v", dns, err)
	}
	if data, err := a.pullSecrets(); err != nil || len(data) > 0 {
		t.Errorf("no file: %q, %v", data, err)
	}

	for _, version := range []string{"192.0.2.1", "192.0.2.2"} {
		for path, text := range map[string]string{resolv: "nameserver " + version + "\n", docker: version} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}

		if dns, err := a.hostDNS(); err != nil || len(dns.Servers) != 1 || dns.Servers[0] != version {
			t.Errorf("resolver configuration %v, %v, want %s", dns, err, version)
		}
		if data, err := a.pullSecrets(); err != nil || string(data) != version {
			t.Errorf("pull secrets %q, %v, want %s", data, err, version)
		}
	}

	// nobody writes to it
	pipe := filepath.Join(a.cfg.RootDir, "pipe")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.Remove(docker), os.Symlink(pipe, docker)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.pullSecrets(); !errors.Is(err, boundedfile.ErrNotRegular) {
		t.Errorf("a pipe: %v", err)
	}
	if err := os.WriteFile(resolv, []byte(strings.Repeat("#", maxHostFile+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.hostDNS(); err == nil {
		t.Error("a file without an end was read")
	}
}
