package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

// The verbs by which the program that uses this package runs itself; they are not for people. Its main calls
// Verb first.
const (
	bootVerb  = "machine-boot"
	runVerb   = "machine-run"
	sweepVerb = "machine-sweep"
)

// Verb carries out a verb of this package and reports whether args held one.
func Verb(ctx context.Context, args []string) (bool, error) {
	if len(args) != 2 {
		return false, nil
	}

	switch args[0] {
	case bootVerb:
		return true, boot(args[1])
	case runVerb:
		return true, runInit(args[1])
	case sweepVerb:
		return true, sweepGroup(ctx, args[1])
	}

	return false, nil
}

func readConfig(dir string) (c Config, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(data, &c)
}

// plain is how file systems of the kernel's own are mounted.
const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// boot is PID 1 before it is an init: in new namespaces, still with the host's mounts and cgroups. It ends in
// an exec, because a cgroup namespace belongs to a thread and only an exec makes this thread the whole
// process.
func boot(dir string) error {
	runtime.LockOSThread()
	c, err := readConfig(dir)
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", plain, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unpin(); err != nil {
		return err
	}

	hierarchies, err := enterCgroup(c.Group, c.Memory)
	if err != nil {
		return err
	}

	for _, d := range c.Disks {
		if err := d.mount(dir); err != nil {
			return err
		}
	}

	if err := buildRoot(dir, c, hierarchies); err != nil {
		return err
	}
	if c.Init == Systemd {
		return execSystemd(dir, c.Packages, hierarchies)
	}

	// Not by its path: that may lie below a directory that is covered now.
	return unix.Exec("/proc/self/exe", []string{os.Args[0], runVerb, dir}, os.Environ())
}

// mountSecurity shows the kernel's security modules, where it has any: nodes have their containers confined
// by AppArmor then, as on the host.
func mountSecurity() error {
	const point = "/sys/kernel/security"
	err := unix.Mount("securityfs", point, "securityfs", plain, "")
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("mount %s: %w", point, err)
	}
	return nil
}

// unpin takes the machine's copies of mounts away that keep namespaces of the host's (nsfs). They would live
// as long as the machine, whatever the host does with them, and look like networks of pods that the machine
// has left.
func unpin() error {
	mounts, err := mountinfo.Self()
	if err != nil {
		return err
	}

	for _, m := range mounts {
		if m.FSType != "nsfs" {
			continue
		}

		// One that is covered is no mount by its path.
		err := unix.Unmount(m.Point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s, a namespace of the host's: %w", m.Point, err)
		}
	}

	return nil
}

// buildRoot arranges the mounts of the machine.
func buildRoot(dir string, c Config, all []hierarchy) error {
	binds, err := openBinds(dir, c)
	if err != nil {
		return err
	}
	defer binds.close()

	scratch := filepath.Join(dir, "scratch")
	if err := unix.Mount("scratch", scratch, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", scratch, err)
	}

	for _, dir := range slices.Concat([]string{"/etc", "/opt", "/var"}, c.Cover) {
		if err := overlay(dir, filepath.Join(scratch, dir)); err != nil {
			return err
		}
	}

	if err := shadowSysctls(scratch); err != nil {
		return err
	}

	steps := []struct{ kind, target, options string }{
		{"tmpfs", "/run", "mode=755"},
		{"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/dev/shm", "mode=1777"},
		{"sysfs", "/sys", ""},
	}

	for _, s := range steps {
		if err := unix.Mount(s.kind, s.target, s.kind, unix.MS_NOSUID|unix.MS_NODEV, s.options); err != nil {
			return fmt.Errorf("mount %s: %w", s.target, err)
		}
	}

	if err := mountSecurity(); err != nil {
		return err
	}
	if err := mountHierarchies(all); err != nil {
		return fmt.Errorf("mount cgroups: %w", err)
	}
	if err := os.MkdirAll("/run/lock", 0o1777); err != nil {
		return err
	}
	if err := binds.mount(); err != nil {
		return err
	}
	if err := writeEtc(c); err != nil {
		return err
	}

	// What is not covered is the host's own: nothing in the machine may change it, not even a breakout.
	if err := unix.Mount("", "/", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make the host's files read-only: %w", err)
	}

	// Kubelets share mounts with containers.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

func overlay(target, scratch string) error {
	upper, work := scratch+"/upper", scratch+"/work"
	for _, dir := range []string{upper, work, target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", target, upper, work)
	if err := unix.Mount("overlay", target, "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay on %s: %w", target, err)
	}
	return nil
}

func writeEtc(c Config) error {
	files := map[string]string{
		"/etc/hosts":       c.Hosts,
		"/etc/hostname":    c.Name + "\n",
		"/etc/resolv.conf": "# no resolver outside the cluster\n",
	}

	for path, text := range files {
		// It may be a symbolic link to a file of the host's /run.
		_ = os.Remove(path)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}

	return nil
}
