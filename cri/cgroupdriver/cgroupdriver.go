// Package cgroupdriver names the control groups of containers as the cgroup driver wants them: paths
// (cgroupfs), or scopes in slices (systemd). It makes none: the OCI runtime does.
package cgroupdriver

import (
	"fmt"
	"path"
	"strings"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/systemd"
)

// Driver is a cgroup driver.
type Driver struct{ Systemd bool }

// Where containers go for which nobody names a parent.
const (
	defaultPath  = "/trivet"
	defaultSlice = "system.slice"
)

// New returns the driver of this name, if the machine has it.
func New(name string) (Driver, error) {
	d := Driver{Systemd: name == "systemd"}
	if d.Systemd && !systemd.Running() {
		return d, &program.CantRunError{What: "cgroup driver systemd: systemd is not PID 1 of this machine",
			Do: "choose the other one with --cgroup-driver=cgroupfs, here and for the node agent"}
	}
	return d, nil
}

// Check refuses a parent (CRI's cgroup_parent) that was named for the other driver: the pod's limits would
// not be those of its containers.
func (d Driver) Check(parent string) error {
	isSlice := strings.HasSuffix(parent, systemd.SliceSuffix)
	switch {
	case parent == "":
		return nil
	case d.Systemd && !isSlice:
		return fmt.Errorf("cgroup parent %q is no slice, but the cgroup driver is systemd", parent)
	case !d.Systemd && isSlice && !strings.Contains(parent, "/"):
		return fmt.Errorf("cgroup parent %q is a slice, but the cgroup driver is cgroupfs", parent)
	case d.Systemd:
		_, err := systemd.SlicePath(path.Base(parent))
		return err
	}

	return nil
}

// OCI is linux.cgroupsPath of the OCI spec: a path, or slice:prefix:name for systemd.
func (d Driver) OCI(parent, id string) string {
	if !d.Systemd {
		return d.Group(parent, id)
	}
	return slice(parent) + ":trivet:" + id
}

// Group is where that is below the roots of the hierarchies. An empty id is the pod itself.
func (d Driver) Group(parent, id string) string {
	if !d.Systemd {
		if parent == "" {
			parent = defaultPath
		}

		return path.Join("/", parent, id)
	}

	group, err := systemd.SlicePath(slice(parent))
	if err != nil {
		// Check has refused it
		group = path.Join("/", slice(parent))
	}

	if id == "" {
		return group
	}

	return path.Join(group, "trivet-"+id+".scope")
}

func slice(parent string) string {
	if parent == "" {
		return defaultSlice
	}
	return path.Base(parent)
}
