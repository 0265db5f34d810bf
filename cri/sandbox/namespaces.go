package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/namespace"
)

// paths says where the files of sandboxes are.
type paths struct {
	// state is boot-scoped, disk is not.
	state, disk string
}

func (p paths) recordsDir() string          { return filepath.Join(p.state, "records") }
func (p paths) dir(id string) string        { return filepath.Join(p.state, id) }
func (p paths) shm(id string) string        { return filepath.Join(p.dir(id), "shm") }
func (p paths) pinsDir(id string) string    { return filepath.Join(p.dir(id), "ns") }
func (p paths) initBundle(id string) string { return filepath.Join(p.dir(id), "pause") }
func (p paths) filesOf(id string) string    { return filepath.Join(p.disk, id) }

// pins returns the namespaces that the pod has of its own, by where they are pinned. A shared PID namespace
// is not among them: its init makes it. Nor is a user namespace, which has more to it; see Users.
func (p paths) pins(r Record) map[namespace.Kind]string {
	dir := p.pinsDir(r.ID)
	pins := map[namespace.Kind]string{}
	if r.ownsNetwork() {
		pins[namespace.Net] = filepath.Join(dir, "net")
		pins[namespace.UTS] = filepath.Join(dir, "uts")
	}
	if r.ownsIPC() {
		pins[namespace.IPC] = filepath.Join(dir, "ipc")
	}
	return pins
}

// Netns returns the path of the pod's network namespace; empty for the host's.
func (p paths) Netns(r Record) string { return p.pins(r)[namespace.Net] }

// PIDNamespace returns the path of the pod's shared PID namespace; empty if it has none. Unlike the process
// ID of its init, a pin always means the same namespace: once the init has ended, nothing can be started
// in it.
func (p paths) PIDNamespace(r Record) string {
	if !r.sharesPID() {
		return ""
	}
	return filepath.Join(p.pinsDir(r.ID), "pid")
}

// Users returns the user namespace of the pod; nil is the host's.
func (p paths) Users(r Record) *namespace.Users {
	// What cannot be made has been refused.
	users, err := spec.UsersOf(r.Options().GetUsernsOptions())
	if err != nil || users == nil {
		return nil
	}

	users.Path = filepath.Join(p.pinsDir(r.ID), "user")
	return users
}

// ociNames are the kinds of namespaces in the OCI spec.
var ociNames = map[namespace.Kind]specs.LinuxNamespaceType{
	namespace.Net: specs.NetworkNamespace,
	namespace.UTS: specs.UTSNamespace,
	namespace.IPC: specs.IPCNamespace,
}

// Namespaces returns the paths of the namespaces that a container of the pod joins, without its PID
// namespace, which the container's own options say.
func (p paths) Namespaces(r Record) map[specs.LinuxNamespaceType]string {
	joined := map[specs.LinuxNamespaceType]string{}
	for kind, path := range p.pins(r) {
		joined[ociNames[kind]] = path
	}
	if users := p.Users(r); users != nil {
		joined[specs.UserNamespace] = users.Path
	}
	return joined
}

// namespaces are those that pods have of their own, but for their PID namespaces; see inits.
type namespaces struct {
	paths
	cfg Config
}

// make makes the namespaces of a pod, with its host name, loopback and sysctls, and pins them.
func (n namespaces) make(r Record) error {
	pins := n.pins(r)
	if len(pins) == 0 {
		return nil
	}
	if err := os.MkdirAll(n.pinsDir(r.ID), 0o700); err != nil {
		return err
	}

	err := n.cfg.Kernel.CreateNamespaces(pins, n.Users(r), func() error { return n.furnish(r) })
	if err != nil {
		return fmt.Errorf("namespaces: %w", err)
	}

	return nil
}

// furnish sets host name, loopback and sysctls, on a thread that is in the pod's new namespaces.
func (n namespaces) furnish(r Record) error {
	if r.ownsNetwork() {
		if name := r.config.GetHostname(); name != "" {
			if err := unix.Sethostname([]byte(name)); err != nil {
				return fmt.Errorf("set host name %q: %w", name, err)
			}
		}

		if err := loopbackUp(); err != nil {
			return err
		}

		n.writeDefaults(r)
	}

	return writeSysctls(r, n.Users(r), false)
}

// remove removes the pins of a pod. One that does not exist is success.
func (n namespaces) remove(r Record) error {
	var errs []error
	for _, path := range n.pins(r) {
		errs = append(errs, n.cfg.Kernel.Unpin(path))
	}
	if users := n.Users(r); users != nil {
		errs = append(errs, n.cfg.Kernel.Unpin(users.Path))
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
