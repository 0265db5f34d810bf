package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/external"
	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/e2e/specs/subject"
	"github.com/trivet-node/trivet/e2e/specs/suite"
	"github.com/trivet-node/trivet/internal/program"
)

// options of a call.
type options struct {
	env   *program.Env
	suite suite.E2E

	// dir is the state directory of the cluster, programs where programs of ours are.
	dir      string
	programs string

	set   string
	shard specs.Shard
	times specs.Times
	procs int
	again int

	// results is the file in which results are kept; fresh begins it again. data is a directory for those of
	// a finished run.
	results string
	fresh   bool
	data    string

	// up are the flags of trivet-cluster up; empty if the cluster is up.
	up []string
}

func configure(env *program.Env) (*options, error) {
	o := &options{env: env}
	flags := env.Flags(about)
	bin := flags.String("bin-dir", ".trivet/bin", "directory with e2e.test, ginkgo and kubectl")
	flags.StringVar(&o.programs, "programs", "bin", "directory with trivet's programs")
	flags.StringVar(&o.dir, "dir", ".trivet", "state directory of the cluster")
	flags.StringVar(&o.suite.Kubeconfig, "kubeconfig", "", "kubeconfig of an administrator; without it the "+
		"cluster's")
	flags.StringVar(&o.suite.ReportDir, "report-dir", "", "directory for the JUnit report and the output; "+
		"without it specs in --dir")
	flags.StringVar(
		&o.set,
		"set",
		"smoke",
		"what to run: conformance, node, storage, external, network, policy, smoke, all, or a "+
			"file with one exact name a line",
	)

	flags.StringVar(&o.set, "list", "smoke", "the same as --set")
	shard := flags.String("shard", "", "a part of the set, such as 2/5: the second of five")
	flags.IntVar(&o.procs, "procs", 4, "specs that run at the same time; 1 runs one after the other")
	flags.IntVar(
		&o.again,
		"again",
		0,
		"run each spec that failed once more in the end, alone, unless more than "+
			"so many failed",
	)

	flags.StringVar(&o.results, "results", "", "file in which results are kept, for a run that goes on")
	flags.BoolVar(&o.fresh, "fresh", false, "begin the file of --results again")
	times := flags.String(
		"times",
		"docs/data/conformance/conformance-trivet.jsonl",
		"results of which the times "+
			"of specs are taken, if the file is there",
	)

	flags.StringVar(&o.data, "data", "", "directory in which the results of a finished run are written as "+
		"SET-AGENT.jsonl, and from which docs/conformance.md is made")
	if err := env.Parse(flags); err != nil {
		return nil, err
	}

	o.up = flags.Args()
	if err := o.complete(*bin); err != nil {
		return nil, err
	}

	var err error
	if o.shard, err = specs.ParseShard(*shard); err != nil {
		return nil, &program.UsageError{Err: err}
	}

	o.times, err = timesIn(*times)
	return o, err
}

// complete makes the paths absolute, for programs that run elsewhere.
func (o *options) complete(bin string) error {
	o.suite.Program = filepath.Join(bin, "e2e.test")
	o.suite.Ginkgo = filepath.Join(bin, "ginkgo")
	o.suite.Kubectl = filepath.Join(bin, "kubectl")
	if o.suite.Kubeconfig == "" {
		o.suite.Kubeconfig = (&cluster.Cluster{Dir: o.dir}).Kubeconfig()
	}
	if o.suite.ReportDir == "" {
		o.suite.ReportDir = filepath.Join(o.dir, "specs")
	}

	// The sets that the suite has by itself are those of what it knows.
	if o.set == "external" || !slices.Contains(specs.Sets, o.set) {
		drivers, err := external.Write(filepath.Join(o.dir, "drivers"))
		if err != nil {
			return err
		}
		o.suite.Drivers = drivers
	}

	paths := []*string{
		&o.dir,
		&o.programs,
		&o.suite.Program,
		&o.suite.Ginkgo,
		&o.suite.Kubectl,
		&o.suite.Kubeconfig,
		&o.suite.ReportDir,
	}
	for i := range o.suite.Drivers {
		paths = append(paths, &o.suite.Drivers[i])
	}

	for _, p := range paths {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}

		*p = abs
	}

	if _, err := os.Stat(o.suite.Program); err != nil {
		return &program.CantRunError{
			What: err.Error(),
			Do:   "run make .trivet/bin/e2e.test, which builds it",
		}
	}

	return nil
}

// timesIn are the times in a file of results; none if it is not there.
func timesIn(path string) (specs.Times, error) {
	_, set, err := results.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return set.Times(), err
}

// subject is what is tested. Of a cluster that is not of trivet-cluster, nothing but the number of its nodes
// is known.
func (o *options) subject(ctx context.Context, count int) (results.Subject, error) {
	version, err := o.suite.Version(ctx)
	if err != nil {
		return results.Subject{}, err
	}

	plan, err := (&cluster.Cluster{Dir: o.dir}).Plan()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return results.Subject{}, fmt.Errorf("the cluster in %s: %w", o.dir, err)
	}

	tested, err := subject.Of(ctx, plan, o.programs, version)
	tested.Nodes = count
	return tested, err
}
