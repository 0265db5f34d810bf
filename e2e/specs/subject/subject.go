// Package subject finds out what a run of specs tests: which commit and programs, in which seats, on which
// machine.
package subject

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/specs/results"
)

// Of is the subject of a run of this version of the suite on a cluster whose programs of ours are in a
// directory.
func Of(ctx context.Context, plan cluster.Plan, programs, suite string) (results.Subject, error) {
	digest, err := digestOf(programs)
	if err != nil {
		return results.Subject{}, err
	}

	return results.Subject{
		Suite:    suite,
		Commit:   Commit(ctx, "."),
		Programs: digest,
		Seats:    seats(plan.Nodes),
		Nodes:    len(plan.Nodes),
		Machine:  Host(),
		Date:     time.Now().UTC().Format(time.DateOnly),
	}, nil
}

// Commit is that of the working tree which the directory is in, with -dirty if tracked files were changed;
// "unknown" without git or a repository.
func Commit(ctx context.Context, dir string) string {
	cmd := exec.CommandContext(ctx, "git", "-C", dir, "describe", "--always", "--dirty", "--abbrev=12",
		"--exclude=*")
	out, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// programs are ours that run on nodes.
var programs = []string{
	"trivet-node", "trivet-cri", "trivet-monitor", "trivet-cni", "trivet-netd", "trivet-csi",
}

// digestOf tells builds of the programs apart: a commit with changed files says little.
func digestOf(dir string) (string, error) {
	sum := sha256.New()
	for _, name := range programs {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}

		_, err = io.Copy(sum, f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("read %s: %w", f.Name(), err)
		}
	}

	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// seats names the programs in the seats of the nodes, once for all nodes that are alike.
func seats(nodes []cluster.Node) string {
	var all []string
	for _, n := range nodes {
		of := []string{
			named("trivet-node", n.Agent),
			named("trivet-cri", n.CRI),
			named("trivet-cni", n.CNI),
			n.OCI,
		}
		if n.Init == machine.Systemd {
			of = append(of, n.Init)
		}

		all = append(all, strings.Join(of, " "))
	}

	return strings.Join(slices.Compact(all), " + ")
}

func named(ours, seat string) string {
	if seat == "trivet" {
		return ours
	}
	return seat
}

// Host describes this machine.
func Host() string {
	kernel := "unknown"
	var uname unix.Utsname
	if err := unix.Uname(&uname); err == nil {
		kernel = unix.ByteSliceToString(uname.Release[:])
	}

	cgroup := "v1"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		cgroup = "v2"
	}

	return fmt.Sprintf("%d cores, Linux %s, cgroup %s", runtime.NumCPU(), kernel, cgroup)
}
