// Package critest runs the published critest (sigs.k8s.io/cri-tools) against a CRI server, and judges what it
// reports.
package critest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/e2e/specs/suite"
)

// leftOut are specs of critest that are not run: benchmarks, and one whose image is pinned by the digest of a
// file that cannot be made here.
var leftOut = []string{
	"benchmark",
	"public image with digest should be pulled and removed",
}

// skips are the reasons that critest gives for a spec that it skips, with ours. Any other reason is a fault.
var skips = map[string]string{
	"AppArmor is disabled on this host":                "this kernel has no AppArmor",
	"NRI socket not configured (use -nri-socket flag)": "trivet-cri has no NRI",
}

// whySkipped is why a skipped spec of critest cannot pass; "" if it should.
func whySkipped(r suite.Result) string {
	return skips[strings.TrimPrefix(r.Message, "skipped - ")]
}

// Run says how critest runs against a CRI server.
type Run struct {
	// Suite is the path of the critest binary, Ginkgo that of the ginkgo command.
	Suite  string
	Ginkgo string

	// Procs is how many specs run at the same time.
	Procs int

	// Endpoint is the server's: unix:///...
	Endpoint string

	// ReportDir receives junit_01.xml and e2e.log.
	ReportDir string

	// Command makes the command that runs a program where the CRI server is.
	Command func(ctx context.Context, name string, args ...string) (*exec.Cmd, error)
}

// Do runs all specs of critest but those that are left out, and returns one result a spec, by name. ended is
// called for each as it ends. The error is about the run itself; failed specs are results.
func (r Run) Do(ctx context.Context, ended func(suite.Result)) ([]suite.Result, error) {
	quoted := make([]string, len(leftOut))
	for i, name := range leftOut {
		quoted[i] = regexp.QuoteMeta(name)
	}

	args := []string{
		"run",
		fmt.Sprintf("--procs=%d", r.Procs),
		"--no-color",
		"-v",
		"--keep-going",
		"--skip=" + strings.Join(quoted, "|"),
	}

	args = append(args, suite.JUnitFlags(r.ReportDir)...)
	args = append(args, r.Suite, "--", "--runtime-endpoint="+r.Endpoint, "--image-endpoint="+r.Endpoint)

	path, err := r.withSudo()
	if err != nil {
		return nil, err
	}
	cmd, err := r.Command(ctx, "env", append([]string{path, r.Ginkgo}, args...)...)
	if err != nil {
		return nil, err
	}

	found, err := suite.Execute(cmd, r.ReportDir, ended)
	if err != nil {
		return nil, err
	}

	maps.DeleteFunc(found, func(_ string, r suite.Result) bool { return r.LeftOut() })
	byName := func(a, b suite.Result) int { return strings.Compare(a.Name, b.Name) }
	return slices.SortedFunc(maps.Values(found), byName), nil
}

// withSudo makes a sudo that runs its command as who it is, and returns a setting of PATH in which it comes
// first: critest loads profiles of AppArmor by sudo, is root here, and a machine may have none.
func (r Run) withSudo() (string, error) {
	dir := filepath.Join(r.ReportDir, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}

	err := os.WriteFile(filepath.Join(dir, "sudo"), []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755)
	return "PATH=" + dir + ":" + os.Getenv("PATH"), err
}
