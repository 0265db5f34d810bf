package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/namespace"
)

// pins are the namespaces that the pod has of its own, by where they are pinned.
func (s *Sandboxes) pins(r Record) map[namespace.Kind]string {
	dir, o := filepath.Join(s.dir(r.ID), "ns"), r.Options()
	pins := map[namespace.Kind]string{}
	if o.GetNetwork() != runtimeapi.NamespaceMode_NODE {
		pins[namespace.Net] = filepath.Join(dir, "net")
		pins[namespace.UTS] = filepath.Join(dir, "uts")
	}
	if o.GetIpc() != runtimeapi.NamespaceMode_NODE {
		pins[namespace.IPC] = filepath.Join(dir, "ipc")
	}
	return pins
}

// Netns is the path of the pod's network namespace; empty for the host's.
func (s *Sandboxes) Netns(r Record) string { return s.pins(r)[namespace.Net] }

// Namespaces are what a container of the pod joins. PID is left to the container.
func (s *Sandboxes) Namespaces(r Record) map[specs.LinuxNamespaceType]string {
	names := map[namespace.Kind]specs.LinuxNamespaceType{namespace.Net: specs.NetworkNamespace, namespace.UTS: specs.UTSNamespace, namespace.IPC: specs.IPCNamespace}
	joined := map[specs.LinuxNamespaceType]string{}
	for kind, path := range s.pins(r) {
		joined[names[kind]] = path
	}
	return joined
}

func (s *Sandboxes) makeNamespaces(r Record) error {
	pins := s.pins(r)
	if len(pins) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(s.dir(r.ID), "ns"), 0o711); err != nil {
		return err
	}
	err := namespace.Create(pins, func() error {
		if pins[namespace.UTS] != "" && r.config.GetHostname() != "" {
			if err := unix.Sethostname([]byte(r.config.Hostname)); err != nil {
				return fmt.Errorf("set host name %q: %w", r.config.Hostname, err)
			}
		}
		if pins[namespace.Net] != "" {
			if err := loopbackUp(); err != nil {
				return err
			}
		}
		for name, value := range r.config.GetLinux().GetSysctls() {
			if err := os.WriteFile(sysctlPath(name), []byte(value), 0); err != nil {
				return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("namespaces: %w", err)
	}
	return nil
}

func (s *Sandboxes) removeNamespaces(r Record) error {
	var errs []error
	for _, path := range s.pins(r) {
		errs = append(errs, namespace.Unpin(path))
	}
	return errors.Join(errs...)
}

// loopbackUp does what the loopback plugin does, without a process.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	return nil
}

func sysctlPath(name string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}

// checkSysctls refuses those that would change the host.
func checkSysctls(r Record) error {
	o := r.Options()
	for name := range r.config.GetLinux().GetSysctls() {
		slashed := strings.ReplaceAll(name, ".", "/")
		ipc := strings.HasPrefix(slashed, "kernel/shm") || strings.HasPrefix(slashed, "kernel/msg") || slashed == "kernel/sem" || strings.HasPrefix(slashed, "fs/mqueue/")
		switch {
		case strings.Contains(slashed, ".."):
			return fmt.Errorf("sysctl %q: not a name", name)
		case strings.HasPrefix(slashed, "net/") && o.GetNetwork() != runtimeapi.NamespaceMode_NODE:
		case ipc && o.GetIpc() != runtimeapi.NamespaceMode_NODE:
		default:
			return fmt.Errorf("sysctl %s: the pod has no namespace of its own for it", name)
		}
	}
	return nil
}

// Files are what each container of the pod mounts beside its own.
func (s *Sandboxes) Files(r Record) []specs.Mount {
	shm := "/dev/shm"
	if r.Options().GetIpc() != runtimeapi.NamespaceMode_NODE {
		shm = filepath.Join(s.dir(r.ID), "shm")
	}
	options := []string{"rbind", "rprivate", "rw"}
	files := []specs.Mount{{Destination: "/dev/shm", Type: "bind", Source: shm, Options: options},
		{Destination: "/etc/resolv.conf", Type: "bind", Source: filepath.Join(s.dir(r.ID), "resolv.conf"), Options: options}}
	if r.config.GetHostname() != "" || r.Options().GetNetwork() == runtimeapi.NamespaceMode_NODE {
		files = append(files, specs.Mount{Destination: "/etc/hostname", Type: "bind", Source: filepath.Join(s.dir(r.ID), "hostname"), Options: options})
	}
	return files
}

func (s *Sandboxes) makeFiles(r Record) error {
	dir := s.dir(r.ID)
	if err := os.MkdirAll(filepath.Join(dir, "shm"), 0o711); err != nil {
		return err
	}
	resolv, err := resolvConf(r.config.GetDnsConfig())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), resolv, 0o644); err != nil {
		return err
	}
	hostname := r.config.GetHostname()
	if hostname == "" {
		hostname, _ = os.Hostname()
	}
	if err := os.WriteFile(filepath.Join(dir, "hostname"), []byte(hostname+"\n"), 0o644); err != nil {
		return err
	}
	if r.config.GetLogDirectory() != "" {
		if err := os.MkdirAll(r.config.LogDirectory, 0o755); err != nil {
			return fmt.Errorf("log directory: %w", err)
		}
	}
	if r.Options().GetIpc() == runtimeapi.NamespaceMode_NODE {
		return nil
	}
	if err := unix.Mount("shm", filepath.Join(dir, "shm"), "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=65536k"); err != nil {
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

func (s *Sandboxes) attachment(r Record) network.Attachment {
	meta := r.config.GetMetadata()
	a := network.Attachment{ID: r.ID, Netns: s.Netns(r), Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid(),
		CgroupPath: r.config.GetLinux().GetCgroupParent()}
	for _, p := range r.config.GetPortMappings() {
		if p.HostPort > 0 {
			a.Ports = append(a.Ports, network.PortMapping{HostPort: p.HostPort, ContainerPort: p.ContainerPort,
				Protocol: strings.ToLower(p.Protocol.String()), HostIP: p.HostIp})
		}
	}
	if dns := r.config.GetDnsConfig(); dns != nil {
		a.DNS = map[string]any{"servers": dns.Servers, "searches": dns.Searches, "options": dns.Options}
	}
	return a
}

func pauseID(id string) string { return "pause-" + id }

// startPause starts the init of the pod's shared PID namespace, from a root directory that holds nothing but the program.
func (s *Sandboxes) startPause(ctx context.Context, r Record) (pid int, err error) {
	runtime, err := s.cfg.Runtime(r.Handler)
	if err != nil {
		return 0, err
	}
	bundle := filepath.Join(s.dir(r.ID), "pause")
	for _, dir := range []string{"rootfs/proc", "rootfs/dev"} {
		if err := os.MkdirAll(filepath.Join(bundle, dir), 0o755); err != nil {
			return 0, err
		}
	}
	if err := os.WriteFile(filepath.Join(bundle, "rootfs/pause"), nil, 0o755); err != nil {
		return 0, err
	}
	adj := max(-998, s.cfg.OOMMin)
	spec := specs.Spec{Version: "1.0.2", Root: &specs.Root{Path: filepath.Join(bundle, "rootfs"), Readonly: true},
		Process: &specs.Process{Args: []string{"/pause", "pause"}, Cwd: "/", Env: []string{"GOMAXPROCS=1"}, OOMScoreAdj: &adj, NoNewPrivileges: true,
			User: specs.User{UID: 65535, GID: 65535}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"},
			// runc makes devices even where nobody asked, and the state directory is usually mounted nodev.
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755", "size=64k"}},
			{Destination: "/pause", Type: "bind", Source: s.cfg.Pause, Options: []string{"bind", "ro"}}},
		Linux: &specs.Linux{CgroupsPath: s.cfg.Cgroup(r.config.GetLinux().GetCgroupParent(), pauseID(r.ID)), Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}}}}
	for kind, path := range s.Namespaces(r) {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600); err != nil {
		return 0, err
	}
	if pid, err = s.cfg.Monitor.Create(ctx, monitor.Container{ID: pauseID(r.ID), Bundle: bundle, Runtime: runtime,
		Cgroup: s.cfg.Group(r.config.GetLinux().GetCgroupParent(), pauseID(r.ID))}); err != nil {
		return 0, fmt.Errorf("init of the shared PID namespace: %w", err)
	}
	return pid, s.cfg.Monitor.Start(ctx, pauseID(r.ID))
}
