package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/mount"
)

// files is the directory of a sandbox's files.
func (s *Sandboxes) files(id string) string { return filepath.Join(s.cfg.FilesDir, id) }

// sweepFiles removes the files of sandboxes that are gone: a reboot takes the records and leaves these.
func (s *Sandboxes) sweepFiles() error {
	entries, err := os.ReadDir(s.cfg.FilesDir)
	if err != nil {
		return fmt.Errorf("files of pod sandboxes: %w", err)
	}

	for _, e := range entries {
		if _, known := s.all[e.Name()]; known {
			continue
		}
		if err := os.RemoveAll(s.files(e.Name())); err != nil {
			s.cfg.Log.Warn("files of a sandbox that is gone stay", "sandbox", e.Name(), "err", err)
		}
	}

	return nil
}

// Mounts are what each container of the pod mounts beside its own. One whose root file system is read-only
// may not write its files either.
func (s *Sandboxes) Mounts(r Record, readOnly bool) []specs.Mount {
	shm, access := "/dev/shm", "rw"
	if r.Options().GetIpc() != runtimeapi.NamespaceMode_NODE {
		shm = filepath.Join(s.dir(r.ID), "shm")
	}
	if readOnly {
		access = "ro"
	}

	bind := func(target, source, access string) specs.Mount {
		return specs.Mount{
			Destination: target,
			Type:        "bind",
			Source:      source,
			Options:     []string{"rbind", "rprivate", access},
		}
	}

	mounts := []specs.Mount{
		bind("/dev/shm", shm, "rw"),
		bind("/etc/resolv.conf", filepath.Join(s.files(r.ID), "resolv.conf"), access),
	}
	if r.config.GetHostname() != "" || r.Options().GetNetwork() == runtimeapi.NamespaceMode_NODE {
		mounts = append(mounts, bind("/etc/hostname", filepath.Join(s.files(r.ID), "hostname"), access))
	}

	return mounts
}

func (s *Sandboxes) makeFiles(r Record) error {
	shm, files := filepath.Join(s.dir(r.ID), "shm"), s.files(r.ID)
	for _, dir := range []string{shm, files} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}

	resolv, err := resolvConf(r.config.GetDnsConfig())
	if err != nil {
		return err
	}

	hostname := r.config.GetHostname()
	if hostname == "" {
		hostname, _ = os.Hostname()
	}

	for name, data := range map[string][]byte{"resolv.conf": resolv, "hostname": []byte(hostname + "\n")} {
		if err := os.WriteFile(filepath.Join(files, name), data, 0o644); err != nil {
			return err
		}
	}

	if r.config.GetLogDirectory() != "" {
		if err := os.MkdirAll(r.config.LogDirectory, 0o755); err != nil {
			return fmt.Errorf("log directory: %w", err)
		}
	}

	if r.Options().GetIpc() == runtimeapi.NamespaceMode_NODE {
		return nil
	}
	if err := unix.Mount("shm", shm, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=65536k"); err != nil {
		return fmt.Errorf("mount /dev/shm of the pod: %w", err)
	}

	return nil
}

func (s *Sandboxes) unmountFiles(r Record) error {
	return mount.Unmount(filepath.Join(s.dir(r.ID), "shm"))
}

// resolvConf is the host's when the pod says nothing of DNS.
func resolvConf(dns *runtimeapi.DNSConfig) ([]byte, error) {
	if len(dns.GetServers())+len(dns.GetSearches())+len(dns.GetOptions()) == 0 {
		data, err := os.ReadFile("/etc/resolv.conf")
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}

		return data, err
	}

	var b strings.Builder
	if len(dns.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(dns.Searches, " "))
	}

	for _, server := range dns.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}

	if len(dns.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(dns.Options, " "))
	}

	return []byte(b.String()), nil
}
