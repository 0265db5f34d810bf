// Package cgroupdriver names the control groups of containers as the cgroup driver wants them: paths
// (cgroupfs), or scopes in slices (systemd). It makes none: the OCI runtime does.
package cgroupdriver

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/systemd"
)

// Driver is a cgroup driver: cgroupfs, or systemd.
type Driver struct{ Systemd bool }

// Parents of containers for which the client names none.
const (
	defaultPath  = "/trivet"
	defaultSlice = "system.slice"
)

// New returns the driver of a name, cgroupfs or systemd. The error is a program.CantRunError if the machine
// does not have it.
func New(name string) (Driver, error) {
	d := Driver{Systemd: name == "systemd"}
	if d.Systemd && !systemd.Running() {
		return d, &program.CantRunError{
			What: "cgroup driver systemd: systemd is not PID 1 of this machine",
			Do:   "choose the other one with --cgroup-driver=cgroupfs, here and for the node agent",
		}
	}
	return d, nil
}

// Check refuses a parent (CRI's cgroup_parent) that was named for the other driver: the pod's limits would
// not be those of its containers. An empty parent is accepted.
func (d Driver) Check(parent string) error {
	isSlice := strings.HasSuffix(parent, systemd.SliceSuffix)
	switch {
	case parent == "":
		return nil
	case d.Systemd && !isSlice:
		return fmt.Errorf("cgroup parent %q is not a slice, but the cgroup driver is systemd", parent)
	case !d.Systemd && isSlice && !strings.Contains(parent, "/"):
		return fmt.Errorf("cgroup parent %q is a slice, but the cgroup driver is cgroupfs", parent)
	case d.Systemd:
		_, err := systemd.SlicePath(path.Base(parent))
		return err
	}

	return nil
}

// Path returns linux.cgroupsPath of the OCI spec for a container: a path, or slice:prefix:name for systemd.
// Check must have accepted the parent.
func (d Driver) Path(parent, id string) string {
	if !d.Systemd {
		return d.Dir(parent, id)
	}
	return slice(parent) + ":trivet:" + id
}

// Dir returns the container's directory below the roots of the hierarchies; that of the pod if id is empty.
// Check must have accepted the parent.
func (d Driver) Dir(parent, id string) string {
	if !d.Systemd {
		if parent == "" {
			parent = defaultPath
		}

		return path.Join("/", parent, id)
	}

	dir, err := systemd.SlicePath(slice(parent))
	if err != nil {
		// Only for a parent that Check refuses.
		dir = path.Join("/", slice(parent))
	}

	if id == "" {
		return dir
	}

	return path.Join(dir, scopeName(id))
}

// Annotations returns annotations for the OCI spec, by which the OCI runtime tells the cgroup driver how to
// keep the unit of a container with these files of cgroup v2. systemd keeps a scope that has failed, and the
// slice that it is in, until somebody resets it, and crun (to 1.8 at least) does not ask for anything else by
// itself. Nor does it ask for all that protects memory.
func (d Driver) Annotations(files map[string]string) map[string]string {
	if !d.Systemd {
		return nil
	}

	const property = "org.systemd.property."
	out := map[string]string{property + "CollectMode": "'inactive-or-failed'"}
	for file, value := range Protections(files) {
		if n, err := strconv.ParseUint(value, 10, 64); err == nil && n > 0 {
			out[property+protections[file]] = fmt.Sprint("uint64 ", n)
		}
	}

	return out
}

// protections are the files of cgroup v2 that protect memory, with systemd's names for them.
var protections = map[string]string{
	"memory.min": "MemoryMin",
	"memory.low": "MemoryLow",
}

// Protections returns those of the files that protect memory. A group is protected as far as the groups above
// it are, so that the scope has to have them, too, where a runtime has a group of its own below it.
func Protections(files map[string]string) map[string]string {
	out := map[string]string{}
	for file, value := range files {
		if protections[file] != "" {
			out[file] = value
		}
	}

	return out
}

const (
	scopePrefix = "trivet-"
	scopeSuffix = ".scope"
)

// scopeName returns the unit that a runtime makes for a container's Path.
func scopeName(id string) string { return scopePrefix + id + scopeSuffix }

func slice(parent string) string {
	if parent == "" {
		return defaultSlice
	}
	return path.Base(parent)
}
