package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Mounts returns what each container of the pod mounts beside its own mounts. A container whose root file
// system is read-only must not write the pod's files either.
func (p paths) Mounts(r Record, readOnly bool) []specs.Mount {
	shm := "/dev/shm"
	if r.ownsIPC() {
		shm = p.shm(r.ID)
	}

	access := "rw"
	if readOnly {
		access = "ro"
	}

	mounts := []specs.Mount{
		bind("/dev/shm", shm, "rw"),
		bind("/etc/resolv.conf", p.resolvConf(r.ID), access),
	}
	if r.config.GetHostname() != "" || !r.ownsNetwork() {
		mounts = append(mounts, bind("/etc/hostname", p.hostname(r.ID), access))
	}

	return mounts
}

func (p paths) resolvConf(id string) string { return filepath.Join(p.filesOf(id), "resolv.conf") }
func (p paths) hostname(id string) string   { return filepath.Join(p.filesOf(id), "hostname") }

func bind(target, source, access string) specs.Mount {
	return specs.Mount{
		Destination: target,
		Type:        "bind",
		Source:      source,
		Options:     []string{"rbind", "rprivate", access},
	}
}

// makeFiles makes the pod's directories, its resolv.conf and hostname, its log directory, and /dev/shm.
func (s *Service) makeFiles(r Record) error {
	for _, dir := range []string{s.shm(r.ID), s.filesOf(r.ID)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}

	resolv, err := resolvConf(r.config.GetDnsConfig())
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.resolvConf(r.ID), resolv, 0o644); err != nil {
		return err
	}

	name := r.config.GetHostname()
	if name == "" {
		name, _ = os.Hostname()
	}
	if err := os.WriteFile(s.hostname(r.ID), []byte(name+"\n"), 0o644); err != nil {
		return err
	}

	root, err := s.giveFiles(r)
	if err != nil {
		return err
	}

	if logs := r.config.GetLogDirectory(); logs != "" {
		if err := os.MkdirAll(logs, 0o755); err != nil {
			return fmt.Errorf("log directory: %w", err)
		}
	}

	if !r.ownsIPC() {
		return nil
	}

	return s.cfg.Kernel.MountShm(s.shm(r.ID), root)
}

// giveFiles gives the files of a pod with users of its own to its root, as whose files they would show on a
// machine, and returns who that is on the host.
func (s *Service) giveFiles(r Record) (root int, err error) {
	users := s.Users(r)
	if users == nil {
		return 0, nil
	}

	root = int(users.First)
	return root, errors.Join(
		os.Chown(s.resolvConf(r.ID), root, root),
		os.Chown(s.hostname(r.ID), root, root),
	)
}

// resolvConf returns the content of a resolv.conf: the host's if the pod asks for nothing.
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

// sweepFiles removes the files of sandboxes that are gone: a reboot takes the records and leaves these.
func (s *Service) sweepFiles() error {
	entries, err := os.ReadDir(s.cfg.FilesDir)
	if err != nil {
		return fmt.Errorf("files of pod sandboxes: %w", err)
	}

	for _, e := range entries {
		if s.Known(e.Name()) {
			continue
		}
		if err := os.RemoveAll(s.filesOf(e.Name())); err != nil {
			s.cfg.Log.Warn("files of a sandbox that is gone are left", "sandbox", e.Name(), "err", err)
		}
	}

	return nil
}
