// Command trivet-bench measures a trivet node beside a reference node (kubelet + containerd + runc) on one
// control plane.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-bench measures two nodes of a running cluster, one of trivet and one of kubelet +
containerd + runc, side by side: pods created until Ready and deleted until gone, one by one and many at once,
in turns, so that the noise of the host meets both alike; the steps of a start, as each runtime dates them;
then the memory of each node's daemons, idle and with many pods. make bench-pods brings the cluster up for
it.`

func main() { program.Tool("trivet-bench", run) }

type comparison struct {
	*bench.Bench
	cluster *cluster.Cluster
	out     io.Writer

	// How often each is measured, and how many pods are in a burst.
	singles, served, bursts, many int

	// idle is how many pods that do nothing are measured, and nothing else is; 0 for everything.
	idle int

	serverImage string

	// nodes are ours, then the reference.
	nodes []cluster.Node

	figures *figure.Writer

	// section is what is being measured, for figures.
	section string

	// spansFile is where the data of the picture of a pod's start is written; "" for nowhere.
	spansFile string
}

func run(ctx context.Context, env *program.Env) error {
	r := &comparison{out: env.Stdout}
	fs := env.Flags(about)
	dir := fs.String("dir", ".trivet", "directory of the cluster")
	image := fs.String("image",
		"registry.k8s.io/pause:3.10.2", "image of the pods; its process must end at once on SIGTERM")
	fs.StringVar(
		&r.serverImage,
		"server-image",
		"registry.k8s.io/e2e-test-images/nginx:1.28.0-2",
		"image that serves HTTP on port 80",
	)

	fs.IntVar(&r.served, "served", 7, "servers with a readiness probe measured one by one on each node")
	fs.IntVar(&r.singles, "singles", 21, "pods measured one by one on each node")
	fs.IntVar(&r.many, "many", 50, "pods of a burst")
	fs.IntVar(&r.bursts, "bursts", 3, "bursts on each node")
	fs.IntVar(&r.idle, "idle", 0, "measure this many pods that do nothing on each node, and nothing else")
	file := fs.String("json", "", figure.FlagUsage)
	fs.StringVar(&r.spansFile, "spans", "", "write the steps of a pod's start to this file, for its picture")
	if err := env.Parse(fs); err != nil {
		return err
	}

	r.figures = figure.NewWriter(*file)
	r.cluster = &cluster.Cluster{
		Dir:      *dir,
		Bin:      *dir + "/bin",
		Programs: "bin",
		Out:      env.Stdout,
	}
	if err := r.findNodes(); err != nil {
		return err
	}

	client, err := bench.Connect(r.cluster.Kubeconfig())
	if err != nil {
		return err
	}

	r.Bench = &bench.Bench{Client: client, Namespace: "bench", Image: *image}
	return r.all(ctx)
}

// idleTimes is how often idle pods are looked at: what their start has left to do is over in the last.
const idleTimes = 4

// findNodes takes the first node of each make.
func (r *comparison) findNodes() error {
	plan, err := r.cluster.Plan()
	if err != nil {
		return err
	}

	var ours, theirs *cluster.Node
	for i, n := range plan.Nodes {
		if n.Agent == "trivet" && ours == nil {
			ours = &plan.Nodes[i]
		}
		if n.Agent == "kubelet" && theirs == nil {
			theirs = &plan.Nodes[i]
		}
	}

	if ours == nil || theirs == nil {
		return &program.CantRunError{
			What: "the cluster does not have a node of each make",
			Do:   "make up NODES=1 REFERENCE_NODES=1",
		}
	}

	r.nodes = []cluster.Node{*ours, *theirs}
	fmt.Fprintf(r.out, "%s (%s) beside %s (%s)\n", ours.Name, ours.Seats, theirs.Name, theirs.Seats)
	return nil
}

func (r *comparison) all(ctx context.Context) error {
	if err := r.Prepare(ctx, []string{r.nodes[0].Name, r.nodes[1].Name}); err != nil {
		return err
	}

	if r.idle > 0 {
		return errors.Join(r.staying(ctx, r.idle, idleTimes), r.Clean(context.WithoutCancel(ctx)))
	}

	return errors.Join(
		r.fresh(ctx),
		r.oneByOne(ctx),
		r.stepByStep(ctx),
		r.withProbe(ctx),
		r.atOnce(ctx),
		r.memory(ctx),
		r.Clean(context.WithoutCancel(ctx)),
		r.figures.Close(),
	)
}
