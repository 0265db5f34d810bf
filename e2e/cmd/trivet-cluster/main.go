// Command trivet-cluster brings a real Kubernetes cluster up on this machine, takes it down, and lets a person or a test do to its nodes
// what happens to nodes: daemons killed, cables cut, reboots.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/demo"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-cluster runs a real Kubernetes cluster in namespaces of this machine.

  up                       bring the cluster up (see the flags for what sits where) and wait until its nodes are Ready
  down                     take it down; nothing is left of it
  status                   its machines and their daemons
  demo                     show a stateful workload on it, step by step, and remove it
  leaks                    what must not be there, after down on this machine, while up on the nodes; an error if there is anything
  start|stop|kill M D      a daemon D of the machine M (control-plane or a node)
  reboot NODE              power cut and boot
  cut|mend NODE            pull the node's network cable, plug it in again
  exec M COMMAND...        run a command inside a machine`

func main() { program.Main("trivet-cluster", run) }

func run(ctx context.Context, env *program.Env) error {
	if done, err := machine.Verb(ctx, env.Args); done {
		return err
	}
	if len(env.Args) == 3 && env.Args[0] == cluster.ProxyVerb {
		return (&cluster.Cluster{Dir: env.Args[1]}).ServeProxy(ctx, env.Args[2], env.Log)
	}
	verb := ""
	if len(env.Args) > 0 && !strings.HasPrefix(env.Args[0], "-") {
		verb, env.Args = env.Args[0], env.Args[1:]
	}
	c, nodes, args, err := configure(env)
	if err != nil {
		return err
	}
	if verb == "" {
		return &program.UsageError{Err: errors.New("what to do? See trivet-cluster --help")}
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}
	return do(ctx, env, c, verb, nodes, args)
}

func configure(env *program.Env) (*cluster.Cluster, []cluster.Node, []string, error) {
	fs := env.Flags(about)
	dir := fs.String("dir", ".trivet", "state directory of the cluster")
	bin := fs.String("bin", ".trivet/bin", "directory with the reference programs")
	programs := fs.String("programs", "bin", "directory with trivet's programs")
	deploy := fs.String("deploy", "deploy", "directory with the manifests of trivet's parts")
	count := fs.Int("nodes", 1, "number of nodes: node1, node2, ...")
	reference := fs.Int("reference-nodes", 0, "number of nodes beside them with kubelet, containerd, runc and the upstream plugins: ref1, ...")
	seats := cluster.Seats{}
	fs.StringVar(&seats.Agent, "agent", "trivet", "node agent: trivet or kubelet")
	fs.StringVar(&seats.CRI, "cri", "trivet", "CRI server: trivet or containerd")
	fs.StringVar(&seats.CNI, "cni", "trivet", "CNI plugin: trivet or upstream")
	fs.StringVar(&seats.OCI, "oci", "crun", "OCI runtime: crun or runc")
	if err := env.Parse(fs); err != nil {
		return nil, nil, nil, err
	}
	for _, p := range []*string{dir, bin, programs, deploy} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return nil, nil, nil, err
		}
		*p = abs
	}
	if *count < 0 || *reference < 0 || *count+*reference < 1 || *count+*reference > 200 {
		return nil, nil, nil, &program.UsageError{Err: fmt.Errorf("%d nodes and %d reference nodes: there can be 1 to 200 of both together", *count, *reference)}
	}
	var nodes []cluster.Node
	for i := range *count {
		nodes = append(nodes, cluster.Node{Name: fmt.Sprintf("node%d", i+1), Seats: seats})
	}
	for i := range *reference {
		nodes = append(nodes, cluster.Node{Name: fmt.Sprintf("ref%d", i+1), Seats: cluster.Reference})
	}
	return &cluster.Cluster{Dir: *dir, Bin: *bin, Programs: *programs, Deploy: *deploy, Out: env.Stdout}, nodes, fs.Args(), nil
}

func do(ctx context.Context, env *program.Env, c *cluster.Cluster, verb string, nodes []cluster.Node, args []string) error {
	need := map[string]int{"start": 2, "stop": 2, "kill": 2, "reboot": 1, "cut": 1, "mend": 1}[verb]
	if len(args) < need {
		return &program.UsageError{Err: fmt.Errorf("%s needs %d arguments, see trivet-cluster --help", verb, need)}
	}
	switch verb {
	case "up":
		return up(ctx, env, c, nodes)
	case "down":
		return c.Down(ctx)
	case "status":
		return c.Status(env.Stdout)
	case "leaks":
		return leaks(ctx, env, c)
	case "demo":
		return runDemo(ctx, env, c)
	case "start", "stop", "kill":
		return c.Daemon(verb, args[0], args[1])
	case "reboot":
		return c.Reboot(ctx, args[0])
	case "cut", "mend":
		return c.Cable(args[0], verb == "mend")
	case "exec":
		return execIn(ctx, env, c, args)
	}
	return &program.UsageError{Err: fmt.Errorf("%q is not something to do, see trivet-cluster --help", verb)}
}

// up takes everything down again when it is interrupted on the way.
func up(ctx context.Context, env *program.Env, c *cluster.Cluster, nodes []cluster.Node) error {
	err := c.Up(ctx, nodes)
	if err != nil && ctx.Err() != nil {
		fmt.Fprintln(env.Stdout, "interrupted: taking down what is up")
		return errors.Join(context.Cause(ctx), c.Down(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return fmt.Errorf("%w\nthe cluster is left as it is to be looked at; make down removes it", err)
	}
	return nil
}

func leaks(ctx context.Context, env *program.Env, c *cluster.Cluster) error {
	found, err := c.Leaks(ctx)
	if err != nil {
		return err
	}
	for _, l := range found {
		fmt.Fprintln(env.Stdout, l)
	}
	if len(found) > 0 {
		return fmt.Errorf("%d things are left", len(found))
	}
	return nil
}

func runDemo(ctx context.Context, env *program.Env, c *cluster.Cluster) error {
	plan, err := c.Plan()
	if err != nil {
		return fmt.Errorf("no cluster is up: %w", err)
	}
	d := demo.Demo{Kubectl: filepath.Join(c.Bin, "kubectl"), Kubeconfig: c.Kubeconfig(), Manifests: filepath.Join(c.Deploy, "demo"),
		Out: env.Stdout, Nodes: len(plan.Nodes)}
	return d.Run(ctx)
}

func execIn(ctx context.Context, env *program.Env, c *cluster.Cluster, args []string) error {
	if len(args) < 2 {
		return &program.UsageError{Err: errors.New("exec needs a machine and a command")}
	}
	cmd, err := c.Machine(args[0]).Command(ctx, args[1], args[2:]...)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, env.Stdout, env.Stderr
	return cmd.Run()
}
