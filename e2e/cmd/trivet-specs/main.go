// Command trivet-specs runs specs of the published Kubernetes end-to-end suite against a cluster and prints
// what passed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/exceptions"
	"github.com/trivet-node/trivet/e2e/specs/nodes"
	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/e2e/specs/run"
	"github.com/trivet-node/trivet/e2e/specs/suite"
	"github.com/trivet-node/trivet/e2e/specs/verdict"
	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-specs runs specs of the published Kubernetes end-to-end suite (e2e.test) against a
cluster that is up, follows the run, prints one line for each spec, and then what did not pass. It ends
with an error unless each spec passed, was skipped by the suite, or is a known exception.

  trivet-specs [flags]                 on the cluster in --dir, which is up
  trivet-specs [flags] -- UP-FLAGS...  on one that it brings up in --dir by trivet-cluster with these
                                       flags (such as --nodes=2 --agent=kubelet), and takes down again
  trivet-specs names                   write e2e/specs/conformance.txt, the names of the conformance set
  trivet-specs page                    write docs/conformance.md and docs/conformance-outside.md from
                                       the results in docs/data/conformance

With --results, what ended is kept in that file as it ends, and what is there already is not run again, unless
it is of another commit, other programs or other seats. So a run that was cut off goes on where it was.`

func main() { program.Tool("trivet-specs", do) }

func do(ctx context.Context, env *program.Env) error {
	verb := ""
	if len(env.Args) > 0 && (env.Args[0] == "names" || env.Args[0] == "page") {
		verb, env.Args = env.Args[0], env.Args[1:]
	}

	o, err := configure(env)
	if err != nil {
		return err
	}

	switch verb {
	case "names":
		return o.writeNames(ctx)
	case "page":
		return writePages(dataDir)
	}

	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}

	// Both the cluster and the reports are those of one run at a time.
	lock := o.suite.ReportDir + ".lock"
	what := fmt.Sprintf("report directory %s (--report-dir)", o.suite.ReportDir)
	if err := lockfile.Hold(ctx, lock, what); err != nil {
		return err
	}

	names, err := o.names(ctx)
	if err != nil {
		return err
	}

	if len(o.up) == 0 {
		return o.run(ctx, names)
	}

	return o.onOwnCluster(ctx, func() error { return o.run(ctx, names) })
}

// names are those of the shard of the set.
func (o *options) names(ctx context.Context) ([]string, error) {
	all, err := o.suite.Names(ctx)
	if err != nil {
		return nil, err
	}
	if err := o.checkNames(ctx, all); err != nil {
		return nil, err
	}

	names, err := specs.Select(all, o.set)
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}

	return o.shard.Pick(names, o.times), nil
}

// run runs the specs on the cluster that is up.
func (o *options) run(ctx context.Context, names []string) error {
	watch, err := nodes.New(ctx, o.suite.Kubeconfig)
	if err != nil {
		return &program.CantRunError{
			What: fmt.Sprintf("no cluster answers by %s: %v", o.suite.Kubeconfig, err),
			Do:   "bring one up (make up), or name another one with --dir",
		}
	}

	tested, err := o.subject(ctx, watch.Count())
	if err != nil {
		return err
	}

	reasons, err := exceptions.Committed()
	if err != nil {
		return err
	}

	log, err := o.open(tested)
	if err != nil {
		return err
	}
	defer log.Close()

	fmt.Fprintf(
		o.env.Stdout,
		"%s, e2e.test %s: commit %s, %d nodes with %s\n",
		o.set,
		tested.Suite,
		tested.Commit,
		tested.Nodes,
		tested.Seats,
	)

	o.suite.Nodes = watch.Count()
	err = run.New(run.Config{
		Suite: o.suite,
		Log:   log,
		Names: names,
		Times: o.times,
		Procs: o.procs,
		Again: o.again,
		Nodes: watch.Fit,
		Out:   o.env.Stdout,

		Excepted: reasons,
	}).Do(ctx)
	if err != nil {
		return o.cutOff(ctx, err)
	}

	return o.conclude(tested, log.Set(), names, reasons)
}

// open opens the log, and says what it begins with.
func (o *options) open(tested results.Subject) (*results.Log, error) {
	if o.results == "" {
		return results.InMemory(), suite.Clear(o.suite.ReportDir)
	}

	log, err := results.Open(o.results, tested, o.fresh)
	if err != nil {
		return nil, err
	}

	if old := log.Old(); old != nil {
		fmt.Fprintf(o.env.Stdout, "begins again; the results of commit %s with %s are in %s.old\n",
			old.Commit, old.Seats, o.results)
	}

	if len(log.Set()) == 0 {
		err = suite.Clear(o.suite.ReportDir)
	}

	return log, err
}

// cutOff adds to the error of a run how to go on.
func (o *options) cutOff(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if o.results == "" {
		return err
	}
	return fmt.Errorf("%w; the results so far are in %s, the same command goes on", err, o.results)
}

// conclude prints the verdict on the set, and writes its results as data.
func (o *options) conclude(
	tested results.Subject, all results.Set, names []string, reasons exceptions.Exceptions,
) error {
	set := all.Of(names)
	v := verdict.Judge(set.Sorted(), reasons)
	v.Print(o.env.Stdout)
	fmt.Fprintf(o.env.Stdout, "the output of the suite is in %s\n", o.suite.ReportDir)

	if o.data == "" {
		return v.Err()
	}
	return errors.Join(v.Err(), o.writeData(tested, set))
}
