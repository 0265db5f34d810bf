// Command trivet-trace shows one pod's start on a trivet node, and on a reference node if there is one, as a
// waterfall of the spans that the programs of the node send.
package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/cluster/controlplane"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/trace/receiver"
)

const about = `trivet-trace receives the spans of a running cluster whose programs send them
(trivet-cluster up --traces=` + address.Traces + `), starts some pods one by one on one node of each make,
and writes the median one of each as a waterfall: what was done, where and how long, from the API server's
answer until the pod is Ready. make trace brings the cluster up for it.`

func main() { program.Tool("trivet-trace", run) }

// options are the flags.
type options struct {
	dir, image, data, svg string
	pods                  int
}

func run(ctx context.Context, env *program.Env) error {
	var o options
	fs := env.Flags(about)
	fs.StringVar(&o.dir, "dir", ".trivet", "directory of the cluster")
	fs.StringVar(&o.image, "image", "registry.k8s.io/pause:3.10.2", "image of the pods")
	fs.IntVar(&o.pods, "pods", 11, "pods on each node, one after the other")
	fs.StringVar(&o.data, "data", "", "write the data of the picture to this file (docs/data/trace-pod.json)")
	fs.StringVar(&o.svg, "svg", "trace.svg", "write the picture to this file")
	if err := env.Parse(fs); err != nil {
		return err
	}

	c := &cluster.Cluster{
		Dir:      o.dir,
		Bin:      filepath.Join(o.dir, "bin"),
		Programs: "bin",
		Out:      env.Stdout,
	}

	nodes, err := oneOfEach(c)
	if err != nil {
		return err
	}

	l, err := listen(c)
	if err != nil {
		return err
	}

	received := receiver.Serve(l)
	defer received.Close()

	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return err
	}

	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}

	t := tracer{
		Bench:    &bench.Bench{Client: client, Namespace: "trace", Image: o.image},
		received: received,
		out:      env.Stdout,
	}
	defer func() { _ = t.Clean(context.WithoutCancel(ctx)) }()

	starts, err := t.starts(ctx, nodes, o.pods)
	if err != nil {
		return err
	}

	return t.write(starts, o)
}

// oneOfEach returns the first node with trivet's agent, and the first with kubelet.
func oneOfEach(c *cluster.Cluster) ([]cluster.Node, error) {
	plan, err := c.Plan()
	if err != nil {
		return nil, fmt.Errorf("no cluster is up: %w", err)
	}

	var nodes []cluster.Node
	for _, agent := range []string{"trivet", "kubelet"} {
		is := func(n cluster.Node) bool { return n.Agent == agent && n.Traces == address.Traces }
		if i := slices.IndexFunc(plan.Nodes, is); i >= 0 {
			nodes = append(nodes, plan.Nodes[i])
		}
	}

	if len(nodes) == 0 {
		return nil, &program.CantRunError{
			What: "no node of the cluster sends spans",
			Do:   "make trace",
		}
	}

	return nodes, nil
}

// listen listens on the LAN of the cluster, where its programs reach it.
func listen(c *cluster.Cluster) (l net.Listener, err error) {
	pid := c.Machine(controlplane.Name).Pid()
	err = namespace.Do(func() (err error) {
		l, err = net.Listen("tcp", address.Traces)
		return err
	}, filepath.Join("/proc", strconv.Itoa(pid), "ns/net"))
	return l, err
}
