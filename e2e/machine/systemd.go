package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Systemd is Config.Init of a machine whose PID 1 is the host's systemd. It loads no unit of the host's: only
// a bus, and the daemons that are started on the machine.
const Systemd = "systemd"

const (
	systemdProgram = "/lib/systemd/systemd"
	baseUnits      = "/run/machine/base"    // the target and the bus
	daemonUnits    = "/run/machine/daemons" // a service for each daemon
	bootTarget     = "machine.target"
)

// units are those of a machine without a daemon. DefaultDependencies=no throughout: the targets that would be
// waited for are the host's.
var units = map[string]string{
	bootTarget: "[Unit]\nDefaultDependencies=no\nWants=dbus.socket dbus.service\nAllowIsolate=yes\n",
	"dbus.socket": "[Unit]\nDefaultDependencies=no\n" +
		"[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
	"dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n" +
		"[Service]\nType=notify\nNotifyAccess=main\nStandardOutput=null\nStandardError=null\n" +
		"ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile " +
		"--systemd-activation\n",
	// Scopes of containers refer to it.
	"shutdown.target": "[Unit]\nDefaultDependencies=no\nRefuseManualStart=yes\n",
}

// packageUnits are where packages, and the administrator who enables them, have units. Targets are what those
// refer to.
var (
	packageUnits = []string{"/etc/systemd/system", "/lib/systemd/system"}
	targets      = []string{
		"sysinit.target", "basic.target", "local-fs.target", "network-online.target", "multi-user.target",
	}
)

// execSystemd makes this process, PID 1 of a machine that is built, systemd. packages says whether it loads
// units of packages.
func execSystemd(dir string, packages bool, all []hierarchy) error {
	if err := writeUnits(); err != nil {
		return err
	}

	unitPath := []string{"/run/systemd/system.control", "/run/systemd/transient", daemonUnits, baseUnits}
	if packages {
		if err := clearPackageUnits(); err != nil {
			return err
		}
		unitPath = append(unitPath, packageUnits...)
	}
	if err := hideControllers(dir, all); err != nil {
		return err
	}

	// What systemd says must not appear on the host's console or in the kernel's log.
	for _, device := range []string{"/dev/console", "/dev/kmsg"} {
		err := unix.Mount(os.DevNull, device, "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cover %s: %w", device, err)
		}
	}

	if err := os.Chdir("/"); err != nil {
		return err
	}

	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		// In a container, systemd leaves devices and the clock alone.
		"container=machine",
		"SYSTEMD_UNIT_PATH=" + strings.Join(unitPath, ":"),
	}

	argv := []string{systemdProgram, "--unit=" + bootTarget, "--log-target=null", "--show-status=no"}
	if len(all) > 0 {
		// In a container, PID 1's arguments are its kernel command line. By default it would keep its groups
		// in the host's cgroup v2, too.
		argv = append(argv, "systemd.unified_cgroup_hierarchy=no",
			"systemd.legacy_systemd_cgroup_controller=yes")
	}

	return fmt.Errorf("execute %s: %w", systemdProgram, unix.Exec(systemdProgram, argv, env))
}

func writeUnits() error {
	for _, d := range []string{baseUnits, daemonUnits} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for name, text := range units {
		if err := os.WriteFile(filepath.Join(baseUnits, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// clearPackageUnits covers the host's units by directories in which there are none, and writes the targets
// that units of packages refer to: the host's would start what they want.
func clearPackageUnits() error {
	for _, dir := range packageUnits {
		if err := unix.Mount("units", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("cover %s: %w", dir, err)
		}
	}
	for _, name := range targets {
		text := []byte("[Unit]\nDefaultDependencies=no\n")
		if err := os.WriteFile(filepath.Join(baseUnits, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// hideControllers shows a /proc/cgroups with those cgroup v1 controllers only that are mounted: systemd would
// mount the others, which makes hierarchies for the whole host.
func hideControllers(dir string, all []hierarchy) error {
	if len(all) == 0 {
		return nil
	}

	mounted := map[string]bool{}
	for _, h := range all {
		for c := range strings.SplitSeq(h.options, ",") {
			mounted[c] = true
		}
	}

	known, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return err
	}

	var shown strings.Builder
	for line := range strings.Lines(string(known)) {
		name, _, _ := strings.Cut(line, "\t")
		if strings.HasPrefix(line, "#") || mounted[name] {
			shown.WriteString(line)
		}
	}

	file := filepath.Join(dir, "scratch", "cgroups")
	if err := os.WriteFile(file, []byte(shown.String()), 0o444); err != nil {
		return err
	}
	if err := unix.Mount(file, "/proc/cgroups", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cover /proc/cgroups: %w", err)
	}

	return nil
}

// services supervises daemons as systemd's services.
type services struct{ *Machine }

// root is the machine's file system as the host sees it.
func (s services) root(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", s.Pid()), path)
}

// ready returns an error unless systemd takes calls.
func (s services) ready() error {
	conn, err := net.Dial("unix", s.root("/run/systemd/private"))
	if err != nil {
		return fmt.Errorf("systemd of machine %s does not answer: %w", s.Name, err)
	}
	return conn.Close()
}

func (s services) systemctl(ctx context.Context, args ...string) (string, error) {
	cmd, err := s.Command(ctx, "systemctl", append([]string{"--no-ask-password"}, args...)...)
	if err != nil {
		return "", err
	}

	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("machine %s: systemctl %s: %w: %s", s.Name, strings.Join(args, " "), err,
			strings.TrimSpace(errs.String()))
	}

	return string(out), nil
}

// WriteUnits writes units, and drop-ins of units, of a machine that runs systemd, name -> content, and has it
// read them. They are gone after a reboot.
func (m *Machine) WriteUnits(units map[string]string) error {
	s := services{m}
	for name, text := range units {
		file := s.root(filepath.Join(daemonUnits, name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), serviceCall)
	defer cancel()

	_, err := s.systemctl(ctx, "daemon-reload")
	return err
}
