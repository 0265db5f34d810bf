// Package seat says which program may sit in which seat of a node (agent, CRI server, CNI plugin, provisioner
// of volumes, OCI runtime, init), and how each of them is started: its command line and its configuration.
// It starts nothing.
package seat

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/trivet-node/trivet/e2e/machine"
)

// Seats says what sits where on a node.
type Seats struct {
	Agent string // trivet or kubelet
	CRI   string // trivet or containerd
	CNI   string // trivet or upstream
	CSI   string // trivet or local-path
	OCI   string // crun or runc
	Init  string // trivet (PID 1 is trivet-cluster) or systemd

	// Traces is host:port of an OTLP receiver to which the programs send spans; empty: they send none.
	Traces string
}

// Ours are trivet's programs over crun.
var Ours = Seats{
	Agent: "trivet",
	CRI:   "trivet",
	CNI:   "trivet",
	CSI:   "trivet",
	OCI:   "crun",
	Init:  "trivet",
}

// Reference are the seats as most clusters have them today, but for volumes: what is compared with it has
// volumes of the same driver.
var Reference = Seats{
	Agent: "kubelet",
	CRI:   "containerd",
	CNI:   "upstream",
	CSI:   "trivet",
	OCI:   "runc",
	Init:  "trivet",
}

// LocalPath is Seats.CSI of a node whose volumes are directories, made by Rancher's local-path-provisioner.
// It is one program for the whole cluster, and what kind and k3s come with.
const LocalPath = "local-path"

// With puts another program into a seat, which is named agent, cri, cni or csi.
func (s Seats) With(seat, program string) (Seats, error) {
	switch seat {
	case "agent":
		s.Agent = program
	case "cri":
		s.CRI, s.OCI = program, RuntimeFor(program)
	case "cni":
		s.CNI = program
	case "csi":
		s.CSI = program
	default:
		return s, fmt.Errorf("no seat is called %q", seat)
	}
	return s, s.Validate()
}

// RuntimeFor is the OCI runtime of a CRI server unless another is wanted: Debian 12's crun is too old for
// containerd 2.4.
func RuntimeFor(cri string) string {
	if cri == "containerd" {
		return "runc"
	}
	return "crun"
}

// StorageClass is the class of volumes that its provisioner makes.
func (s Seats) StorageClass() string {
	if s.CSI == LocalPath {
		return LocalPath
	}
	return "trivet"
}

// Network is what the network of a node's pods is called, and its bridge.
type Network struct{ Name, Bridge string }

// Network is what the node's CNI plugin calls the network by itself.
func (s Seats) Network() Network {
	if s.CNI == "upstream" {
		return Network{"pods", "cni0"}
	}
	return Network{"trivet", "trivet0"}
}

// Validate returns an error that names the seat in which something sits that does not belong there.
func (s Seats) Validate() error {
	for _, c := range []struct {
		seat, value string
		allowed     [2]string
	}{
		{"node agent", s.Agent, [2]string{"trivet", "kubelet"}},
		{"CRI server", s.CRI, [2]string{"trivet", "containerd"}},
		{"CNI plugin", s.CNI, [2]string{"trivet", "upstream"}},
		{"provisioner of volumes", s.CSI, [2]string{"trivet", LocalPath}},
		{"OCI runtime", s.OCI, [2]string{"crun", "runc"}},
		{"init", s.Init, [2]string{"trivet", machine.Systemd}},
	} {
		if c.value != c.allowed[0] && c.value != c.allowed[1] {
			return fmt.Errorf("%s %q is neither %s nor %s", c.seat, c.value, c.allowed[0], c.allowed[1])
		}
	}

	return nil
}

// CheckRuntime asks the OCI runtime of this host for its version and returns an error when it cannot work
// with the CRI server.
func (s Seats) CheckRuntime() error {
	out, err := exec.Command(s.OCI, "--version").Output()
	if err != nil {
		return fmt.Errorf("OCI runtime %s: %w; run make install", s.OCI, err)
	}
	return s.fits(string(out))
}

// fits refuses pairs of programs that cannot work together: containerd 2.4 writes OCI 1.3 configurations,
// which a crun of OCI 1.0 (Debian 12 has crun 1.8.1) rejects as "unknown version specified".
func (s Seats) fits(runtimeVersion string) error {
	if s.CRI == "containerd" && s.OCI == "crun" && strings.Contains(runtimeVersion, "spec: 1.0.0") {
		return errors.New("this crun is too old for containerd 2.4 (it knows OCI 1.0 only): take " +
			"OCI=runc, or a crun of 1.15 or newer")
	}
	return nil
}

// MachineInit is the machine.Config.Init of a node with these seats.
func (s Seats) MachineInit() string {
	if s.Init == machine.Systemd {
		return machine.Systemd
	}
	return ""
}

// CgroupDriver follows the init: systemd wants to be asked for groups.
func (s Seats) CgroupDriver() string {
	if s.Init == machine.Systemd {
		return "systemd"
	}
	return "cgroupfs"
}

// CRISocket is where the CRI server listens, a path inside the node.
func (s Seats) CRISocket() string {
	if s.CRI == "trivet" {
		return "/run/trivet/cri.sock"
	}
	return "/run/containerd/containerd.sock"
}

// CRIEndpoint is the CRI server's socket as kubelets and critest want it named.
func (s Seats) CRIEndpoint() string { return "unix://" + s.CRISocket() }
