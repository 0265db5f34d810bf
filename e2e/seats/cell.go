// Package seats tries every mix of trivet's programs and others' in the seats of a node: each mix, a cell of
// the matrix, has a cluster of its own, on which it shows the demo, runs tests of package scenario, and
// measures how long a pod takes to start. docs/seats.md is made of what came out.
package seats

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/machine"
)

// Cells are those of the matrix: each program of a node beside each that it may meet, and some with another
// OCI runtime or with systemd.
func Cells() []seat.Seats {
	var all []seat.Seats
	for _, agent := range []string{"trivet", "kubelet"} {
		for _, cri := range []string{"trivet", "containerd"} {
			for _, cni := range []string{"trivet", "upstream"} {
				for _, csi := range []string{"trivet", seat.LocalPath} {
					all = append(all, seat.Seats{
						Agent: agent,
						CRI:   cri,
						CNI:   cni,
						CSI:   csi,
						OCI:   seat.RuntimeFor(cri),
						Init:  "trivet",
					})
				}
			}
		}
	}

	return append(all, variants()...)
}

// variants are cells with systemd, or with runc where crun usually is.
func variants() []seat.Seats {
	overRunc, systemd, both, theirs := seat.Ours, seat.Ours, seat.Ours, seat.Reference
	overRunc.OCI = "runc"
	systemd.Init = machine.Systemd
	both.OCI, both.Init = "runc", machine.Systemd
	theirs.CNI, theirs.Init = "trivet", machine.Systemd
	return []seat.Seats{overRunc, systemd, both, theirs}
}

// Name of a cell: the programs in its seats.
func Name(s seat.Seats) string { return strings.Join(columns(s), " ") }

// columns are the programs in the seats, in the order of the table.
func columns(s seat.Seats) []string {
	programs := []string{
		program("trivet-node", s.Agent),
		program("trivet-cri", s.CRI),
		program("trivet-cni", s.CNI),
		program("trivet-csi", s.CSI),
		s.OCI,
	}
	if s.Init == machine.Systemd {
		programs = append(programs, "systemd")
	}
	return programs
}

func program(ours, value string) string {
	if value == "trivet" {
		return ours
	}
	return value
}

// Choose returns the cells that a person or CI asks for: all; the one of a commit, which is another one for
// each; or those that have every one of some programs, separated by commas ("kubelet,upstream").
func Choose(wanted, commit string) ([]seat.Seats, error) {
	switch wanted {
	case "all":
		return Cells(), nil
	case "rotating":
		return []seat.Seats{Rotating(commit)}, nil
	}

	var chosen []seat.Seats
	for _, cell := range Cells() {
		lacks := func(program string) bool { return !slices.Contains(columns(cell), program) }
		if !slices.ContainsFunc(strings.Split(wanted, ","), lacks) {
			chosen = append(chosen, cell)
		}
	}

	if len(chosen) == 0 {
		return nil, fmt.Errorf("no cell of the matrix has %q: all, rotating, or programs with commas", wanted)
	}

	return chosen, nil
}

// Rotating is the cell that CI tries for a commit. The first is left out: it is what all other tests run on.
func Rotating(commit string) seat.Seats {
	cells := Cells()[1:]
	rank := func(s seat.Seats) []byte {
		sum := sha256.Sum256([]byte(commit + "\n" + Name(s)))
		return sum[:]
	}
	return slices.MinFunc(cells, func(a, b seat.Seats) int { return bytes.Compare(rank(a), rank(b)) })
}

// flags are those of trivet-cluster up.
func flags(s seat.Seats) []string {
	all := []string{
		"--agent=" + s.Agent,
		"--cri=" + s.CRI,
		"--cni=" + s.CNI,
		"--csi=" + s.CSI,
		"--oci=" + s.OCI,
	}
	if s.Init == machine.Systemd {
		all = append(all, "--systemd-nodes=1")
	}
	return all
}
