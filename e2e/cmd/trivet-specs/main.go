// Command trivet-specs runs chosen specs of the published Kubernetes end-to-end suite against a cluster and
// prints what passed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-specs runs specs of the published Kubernetes end-to-end suite (e2e.test) against a
running cluster, follows the run, and prints one line for each spec. It ends with an error unless every one of
them passed.`

func main() { program.Tool("trivet-specs", run) }

func run(ctx context.Context, env *program.Env) error {
	c, list, err := configure(env)
	if err != nil {
		return err
	}

	c.Names = specs.Smoke()
	if list != "" {
		text, err := os.ReadFile(list)
		if err != nil {
			return &program.UsageError{Err: err}
		}

		c.Names = specs.Parse(string(text))
	}

	if len(c.Names) == 0 {
		return &program.UsageError{Err: errors.New("no specs are named")}
	}

	start := time.Now()
	fmt.Fprintf(env.Stdout, "%d specs of %s\n", len(c.Names), c.Suite)
	results, err := specs.Run(ctx, c, env.Stdout)
	if err != nil {
		return err
	}

	passed := summarize(env.Stdout, results)
	fmt.Fprintf(
		env.Stdout,
		"%d of %d specs passed in %s; report in %s\n",
		passed,
		len(results),
		time.Since(start).Round(time.Second),
		c.ReportDir,
	)
	if passed != len(results) {
		return fmt.Errorf("%d of %d specs did not pass", len(results)-passed, len(results))
	}

	return nil
}

func configure(env *program.Env) (specs.Config, string, error) {
	var c specs.Config
	fs := env.Flags(about)
	bin := fs.String("bin-dir", ".trivet/bin", "directory with e2e.test, ginkgo and kubectl")
	fs.IntVar(&c.Procs, "procs", 4, "specs that run at the same time; 1 runs the suite in one process")
	fs.StringVar(&c.Kubeconfig, "kubeconfig", ".trivet/kubeconfig", "kubeconfig of an administrator")
	fs.StringVar(&c.ReportDir, "report-dir", ".trivet/specs", "directory for the JUnit report and the log")
	list := fs.String("list", "", "file with one exact spec name a line; empty: the smoke set")
	if err := env.Parse(fs); err != nil {
		return c, "", err
	}

	c.Suite, c.Kubectl = filepath.Join(*bin, "e2e.test"), filepath.Join(*bin, "kubectl")
	if c.Procs > 1 {
		c.Ginkgo = filepath.Join(*bin, "ginkgo")
	}

	for _, p := range []*string{&c.Suite, &c.Kubectl, &c.Kubeconfig, &c.ReportDir, &c.Ginkgo} {
		if *p == "" {
			continue
		}

		abs, err := filepath.Abs(*p)
		if err != nil {
			return c, "", err
		}

		*p = abs
	}

	if _, err := os.Stat(c.Suite); err != nil {
		return c, "", &program.CantRunError{What: err.Error(), Do: "run make e2e, which builds it"}
	}

	return c, *list, nil
}

func summarize(out io.Writer, results []specs.Result) (passed int) {
	for _, r := range results {
		if r.Outcome == specs.Passed {
			passed++
			continue
		}
		fmt.Fprintf(out, "%-7s %s\n        %s\n", r.Outcome, r.Name, r.Message)
	}
	return passed
}
