package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/internal/namespace"
)

// pins are the namespaces that the pod has of its own, by where they are pinned. A shared PID namespace is
// made by its init instead.
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
	names := map[namespace.Kind]specs.LinuxNamespaceType{
		namespace.Net: specs.NetworkNamespace,
		namespace.UTS: specs.UTSNamespace,
		namespace.IPC: specs.IPCNamespace,
	}
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
	if err := os.MkdirAll(filepath.Join(s.dir(r.ID), "ns"), 0o700); err != nil {
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

			s.writeDefaults(r)
		}

		return writeSysctls(r, false)
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

func (s *Sandboxes) attachment(r Record) network.Attachment {
	meta := r.config.GetMetadata()
	a := network.Attachment{
		ID:         r.ID,
		Netns:      s.Netns(r),
		Name:       meta.GetName(),
		Namespace:  meta.GetNamespace(),
		UID:        meta.GetUid(),
		CgroupPath: r.config.GetLinux().GetCgroupParent(),
	}

	for _, p := range r.config.GetPortMappings() {
		if p.HostPort > 0 {
			a.Ports = append(a.Ports, network.PortMapping{
				HostPort:      p.HostPort,
				ContainerPort: p.ContainerPort,
				Protocol:      strings.ToLower(p.Protocol.String()),
				HostIP:        p.HostIp,
			})
		}
	}

	if dns := r.config.GetDnsConfig(); dns != nil {
		a.DNS = map[string]any{"servers": dns.Servers, "searches": dns.Searches, "options": dns.Options}
	}

	return a
}
