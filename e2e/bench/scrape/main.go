// Command scrape-bench asks a trivet node and a kubelet node, which run the same pods, for their metrics:
// what a scrape takes of the processor, and whether the values are the same.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
)

const about = `scrape-bench runs the same pods on two nodes of a running cluster, one of trivet and one of
kubelet + containerd + runc, some of which use processor, memory, disk, network and a volume, and asks both
nodes for their metrics as Prometheus does. It prints what a scrape takes, and for each family of metrics
that kubelet serves whether trivet's is there, with its labels, and has the same value. make bench-scrape
brings the cluster up for it.`

// The endpoints that are measured.
const summaryPath = "/stats/summary"

var endpoints = []string{"/metrics/cadvisor", "/metrics/resource", "/metrics", summaryPath}

// compared are the endpoints whose values are compared.
var compared = append([]string{"/metrics/probes"}, endpoints...)

func main() { program.Tool("scrape-bench", run) }

type comparison struct {
	*bench.Bench
	out     io.Writer
	figures *figure.Writer

	// targets are ours, then the reference.
	targets []*target

	// pods are on each node.
	pods, rounds int

	// interval is from scrape to scrape, quiet how long the daemons are watched without one.
	interval, quiet time.Duration

	// needs are the families that rules and dashboards use.
	needs []need

	// pages is where the last answers are kept; "" for nowhere.
	pages string
}

func run(ctx context.Context, env *program.Env) error {
	r := &comparison{out: env.Stdout}
	fs := env.Flags(about)
	dir := fs.String("dir", ".trivet", "directory of the cluster")
	fs.IntVar(&r.pods, "pods", 110, "pods on each node")
	fs.IntVar(&r.rounds, "rounds", 15, "scrapes of each endpoint of each node")
	fs.DurationVar(&r.interval, "interval", 6*time.Second, "from scrape to scrape")
	fs.DurationVar(
		&r.quiet,
		"quiet",
		time.Minute,
		"how long the daemons are watched before the first scrape, and while they are asked every 15 s",
	)

	mixin := fs.String("mixin", "docs/data/mixin-metrics.json", "list of what rules and dashboards use")
	fs.StringVar(&r.pages, "pages", "", "keep the last answers in this directory")
	file := fs.String("json", "", figure.FlagUsage)
	if err := env.Parse(fs); err != nil {
		return err
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}

	state, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	if r.needs, err = readNeeds(*mixin); err != nil {
		return err
	}

	r.figures = figure.NewWriter(*file)
	if err := r.connect(&cluster.Cluster{Dir: state, Out: env.Stdout}); err != nil {
		return err
	}

	return errors.Join(r.all(ctx), r.Clean(context.WithoutCancel(ctx)), r.figures.Close())
}

// connect takes the first node of each make.
func (r *comparison) connect(c *cluster.Cluster) error {
	plan, err := c.Plan()
	if err != nil {
		return err
	}

	client, config, err := bench.ConnectAs(c.Kubeconfig())
	if err != nil {
		return err
	}

	r.Bench = &bench.Bench{
		Client:    client,
		Namespace: loadNamespace,
		Image:     "registry.k8s.io/pause:3.10.2",
	}

	sides := map[string]string{"trivet": figure.Ours, "kubelet": "kubelet+containerd"}
	for _, agent := range []string{"trivet", "kubelet"} {
		i := plan.FirstWith(agent)
		if i < 0 {
			return &program.CantRunError{
				What: "the cluster does not have a node of each make",
				Do:   "make up NODES=1 REFERENCE_NODES=1",
			}
		}

		t, err := newTarget(c, config, i, sides[agent])
		if err != nil {
			return err
		}

		r.targets = append(r.targets, t)
	}

	return nil
}

func (r *comparison) all(ctx context.Context) error {
	if err := r.Prepare(ctx, []string{r.targets[0].name, r.targets[1].name}); err != nil {
		return err
	}
	if err := r.start(ctx); err != nil {
		return err
	}

	// Values of the time when the pods started are over.
	if err := retry.Sleep(ctx, r.quiet/2); err != nil {
		return err
	}

	before, err := r.look(ctx)
	if err != nil {
		return err
	}

	fmt.Fprintf(r.out, "%d pods on each node\n", r.pods)
	start := time.Now()
	if err := r.scrapes(ctx); err != nil {
		return err
	}
	if err := r.watched(ctx); err != nil {
		return err
	}

	after, err := r.look(ctx)
	if err != nil {
		return err
	}

	r.values(before, after, time.Since(start).Seconds())
	return nil
}
