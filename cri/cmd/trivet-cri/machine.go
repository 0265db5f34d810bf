package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/cri/host"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/program"
)

// machine is what the server needs of this machine.
type machine struct {
	handlers       ociruntime.Handlers
	driver         cgroupdriver.Driver
	cgroups        *cgroup.Host
	host           spec.Host
	monitorProgram string
}

// inspect finds out what the machine has. It changes nothing. The error for something that is missing says
// what to do.
func inspect(cfg config.Config) (m machine, err error) {
	if cfg.OCIRuntime == "" {
		cfg.OCIRuntime = defaultRuntime()
	}
	if cfg.CgroupDriver, err = cfg.Driver(); err != nil {
		return m, &program.UsageError{Err: err}
	}
	if m.handlers, err = findHandlers(cfg); err != nil {
		return m, err
	}
	if m.driver, err = cgroupdriver.New(cfg.CgroupDriver); err != nil {
		return m, err
	}

	if m.cgroups, err = cgroup.Open(); err != nil {
		return m, &program.CantRunError{
			What: "cgroups: " + err.Error(),
			Do:   "mount cgroup v2 or the v1 hierarchies below /sys/fs/cgroup",
		}
	}

	if m.host, err = host.Probe(m.cgroups); err != nil {
		return m, fmt.Errorf("look at the machine: %w", err)
	}
	m.monitorProgram, err = findMonitor(cfg.Monitor.Program)
	return m, err
}

// findMonitor returns the path of trivet-monitor: the configured one, else the one beside this program, else
// the one in PATH.
func findMonitor(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}

	if own, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(own), "trivet-monitor"); isFile(beside) {
			return beside, nil
		}
	}

	found, err := exec.LookPath("trivet-monitor")
	if err != nil {
		return "", &program.CantRunError{
			What: "trivet-monitor is neither beside trivet-cri nor in PATH",
			Do:   "install it there, or name it with --monitor",
		}
	}

	return found, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
