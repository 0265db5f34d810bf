// Package specs runs chosen specs of the published Kubernetes end-to-end suite (e2e.test) against a cluster
// and returns a result for each. The suite is the real one: this package only chooses by exact name,
// follows the run, and reads its JUnit report.
package specs

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

//go:embed smoke.txt
var smoke string

// Smoke are the names of the smoke set.
func Smoke() []string { return Parse(smoke) }

// Parse reads one spec name a line; empty lines and lines that start with # are skipped.
func Parse(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, line)
		}
	}
	return names
}

// Config says which suite runs against which cluster.
type Config struct {
	Suite      string   // path of the e2e.test binary
	Ginkgo     string   // path of the ginkgo command; empty runs the suite in one process
	Procs      int      // parallel processes, used with Ginkgo
	Kubeconfig string   // an administrator's
	Kubectl    string   // path of kubectl, which some specs run
	ReportDir  string   // receives junit_01.xml and e2e.log
	Names      []string // exact spec names
}

// Run runs the named specs and returns one result a name, in their order. The error is about the run itself
// (the suite cannot start, its report cannot be read); failed specs are results. Progress gets one line for
// each spec that ends.
func Run(ctx context.Context, c Config, progress io.Writer) ([]Result, error) {
	found, err := runSuite(suiteCommand(ctx, c), c.ReportDir, len(c.Names), progress)
	if err != nil {
		return nil, err
	}
	return pick(found, c.Names), nil
}

// focusOn is a regular expression that matches just the given names.
func focusOn(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = regexp.QuoteMeta(n)
	}
	return "(" + strings.Join(quoted, "|") + ")$"
}

func suiteCommand(ctx context.Context, c Config) *exec.Cmd {
	focus := "--ginkgo.focus=" + focusOn(c.Names)
	args := []string{"--provider=skeleton", "--kubeconfig=" + c.Kubeconfig, "--kubectl-path=" + c.Kubectl,
		"--report-dir=" + c.ReportDir, "--disable-log-dump=true", "--dns-domain=cluster.local"}
	name := c.Suite
	if c.Ginkgo == "" {
		args = append(args, "--ginkgo.no-color", "--ginkgo.v", focus)
	} else {
		name = c.Ginkgo
		args = append([]string{"run", fmt.Sprintf("--procs=%d",
			max(c.Procs, 1)), "--no-color", "-v", "--keep-going",
			strings.Replace(focus, "--ginkgo.focus", "--focus", 1), c.Suite, "--"}, args...)
	}

	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECACHEDIR="+filepath.Join(filepath.Dir(c.Kubeconfig), "kubectl-cache"))
	return cmd
}

func pick(found map[string]Result, names []string) []Result {
	out := make([]Result, len(names))
	for i, n := range names {
		r, ok := found[n]
		if !ok {
			r = Result{Name: n, Outcome: Missing, Message: "the suite has no spec of this name"}
		}
		out[i] = r
	}
	return out
}
