// Package seat says which program may sit in which seat of a node (agent, CRI server, CNI plugin, OCI
// runtime, init), and how each of them is started: its command line and its configuration. It starts nothing.
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
	OCI:   "crun",
	Init:  "trivet",
}

// Reference are the seats as most clusters have them today.
var Reference = Seats{
	Agent: "kubelet",
	CRI:   "containerd",
	CNI:   "upstream",
	OCI:   "runc",
	Init:  "trivet",
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
