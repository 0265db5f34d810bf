package specs

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// leftOut are specs of critest that are not run: benchmarks, and one whose image is pinned by the digest of a
// file that cannot be made here.
var leftOut = []string{
	"benchmark",
	"public image with digest should be pulled and removed",
}

// skips are the reasons that critest gives for a spec that it skips, with ours. Any other reason is a fault.
var skips = map[string]string{
	"AppArmor is disabled on this host":                       "this kernel has no AppArmor",
	"NRI socket not configured (use -nri-socket flag)":        "trivet-cri has no NRI",
	"no runtime handler found which supports user namespaces": "trivet-cri refuses user namespaces",
}

// whySkipped is why a skipped spec of critest cannot pass; "" if it should.
func whySkipped(r Result) string {
	return skips[strings.TrimPrefix(r.Message, "skipped - ")]
}

// Critest says how the published critest (sigs.k8s.io/cri-tools) runs against a CRI server.
type Critest struct {
	Suite     string // path of the critest binary
	Ginkgo    string // path of the ginkgo command
	Procs     int    // parallel processes
	Endpoint  string // unix:///...
	ReportDir string // receives junit_01.xml and e2e.log

	// Command makes the command that runs a program where the CRI server is.
	Command func(ctx context.Context, name string, args ...string) (*exec.Cmd, error)
}

// RunCritest runs all specs of critest but those that are left out, and returns one result a spec, by name.
// As with Run, the error is about the run itself.
func RunCritest(ctx context.Context, c Critest, progress io.Writer) ([]Result, error) {
	quoted := make([]string, len(leftOut))
	for i, name := range leftOut {
		quoted[i] = regexp.QuoteMeta(name)
	}

	cmd, err := c.Command(ctx, c.Ginkgo, "run",
		fmt.Sprintf("--procs=%d", c.Procs), "--no-color", "-v", "--keep-going",
		"--skip="+strings.Join(quoted, "|"),
		"--output-dir="+c.ReportDir, "--junit-report="+junitName, c.Suite,
		"--", "--runtime-endpoint="+c.Endpoint, "--image-endpoint="+c.Endpoint)
	if err != nil {
		return nil, err
	}

	found, err := runSuite(cmd, c.ReportDir, 0, progress)
	if err != nil {
		return nil, err
	}

	// A spec that was left out is reported as skipped, without a reason of its own.
	maps.DeleteFunc(found, func(_ string, r Result) bool {
		return r.Outcome == Skipped && r.Message == "skipped"
	})
	byName := func(a, b Result) int { return strings.Compare(a.Name, b.Name) }
	return slices.SortedFunc(maps.Values(found), byName), nil
}
