// Command trivet-cluster brings a real Kubernetes cluster up on this machine, takes it down, and lets a
// person or a test do to its nodes what happens to nodes: daemons killed, cables cut, reboots.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/cluster/apiproxy"
	"github.com/trivet-node/trivet/e2e/cluster/controlplane"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/demo"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/specs/critest"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-cluster runs a real Kubernetes cluster in namespaces of this machine.

  up                       bring the cluster up (the flags say what sits where), until its nodes are Ready
  down                     take it down; nothing is left of it
  status                   its machines and their daemons
  demo                     show a stateful workload on it, step by step, and remove it
  critest                  run the published critest against trivet-cri over --oci, on a machine of its own
  leaks                    what must not be there: while up on the nodes, after down on this host; an error if
                           there is anything
  logs M D                 the log of the daemon D of the machine M
  start|stop|kill M D      a daemon D of the machine M (control-plane or a node)
  agent NODE A             exchange the agent of a node that runs for A, trivet or kubelet; its pods go on
  cni NODE P               the same of its CNI plugin: trivet or upstream
  csi NODE P               the same of its provisioner of volumes: trivet or local-path
  cri NODE S               the same of the CRI server, trivet or containerd, of a node that was drained
  guest boot|network|dismiss
                           a machine that is not a node: boot it, start its network daemon after it has
                           joined by kubeadm, end it
  reboot NODE              power cut and boot
  cut|mend NODE            pull the node's network cable, plug it in again
  install metrics-server   have it on the cluster, for kubectl top and autoscalers
  remove metrics-server    the end of that
  exec M COMMAND...        run a command inside a machine`

// critestProcs is how many specs of critest run at the same time.
const critestProcs = 8

func main() { program.Tool("trivet-cluster", run) }

func run(ctx context.Context, env *program.Env) error {
	if done, err := machine.Verb(ctx, env.Args); done {
		return err
	}

	if len(env.Args) == 3 && env.Args[0] == apiproxy.Verb {
		plane := (&cluster.Cluster{Dir: env.Args[1]}).Machine(controlplane.Name)
		return apiproxy.Serve(ctx, env.Args[2], plane.Pid, env.Log)
	}

	verb := ""
	if len(env.Args) > 0 && !strings.HasPrefix(env.Args[0], "-") {
		verb, env.Args = env.Args[0], env.Args[1:]
	}

	s, err := configure(env)
	if err != nil {
		return err
	}
	if verb == "" {
		return &program.UsageError{Err: errors.New("what to do? See trivet-cluster --help")}
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}

	return s.do(ctx, verb)
}

// session is one call of the program.
type session struct {
	*program.Env
	*cluster.Cluster
	nodes []cluster.Node
	oci   string   // of the seats
	args  []string // after verb and flags
	wait  time.Duration
}

// seatFlags are the flags that say what sits in the seats of a node.
func seatFlags(fs *flag.FlagSet) *seat.Seats {
	seats := seat.Ours
	fs.StringVar(&seats.Agent, "agent", "trivet", "node agent: trivet or kubelet")
	fs.StringVar(&seats.CRI, "cri", "trivet", "CRI server: trivet or containerd")
	fs.StringVar(&seats.CNI, "cni", "trivet", "CNI plugin: trivet or upstream")
	fs.StringVar(&seats.CSI, "csi", "trivet", "provisioner of volumes: trivet or local-path")
	fs.StringVar(&seats.OCI, "oci", "crun", "OCI runtime: crun or runc")
	fs.StringVar(
		&seats.Traces,
		"traces",
		"",
		"up: host:port of an OTLP receiver to which programs send spans",
	)

	return &seats
}

// addOnFlags are the flags that say what a cluster has beside its nodes.
func addOnFlags(fs *flag.FlagSet) (metrics, snapshots *bool) {
	metrics = fs.Bool("metrics-server", false, "up: install metrics-server, too")
	snapshots = fs.Bool("snapshots", false, "up: run the snapshot controller, with trivet-csi's classes of "+
		"snapshots, group snapshots and attributes")
	return metrics, snapshots
}

func configure(env *program.Env) (*session, error) {
	s := &session{Env: env}
	fs := env.Flags(about)
	dir := fs.String("dir", ".trivet", "state directory of the cluster")
	bin := fs.String("bin", ".trivet/bin", "directory with the reference programs")
	programs := fs.String("programs", "bin", "directory with trivet's programs")
	images := fs.String("images", ".trivet/images", "OCI layout that the cluster's registry serves")
	deploy := fs.String("deploy", "deploy", "directory with the manifests of trivet's parts")
	count := fs.Int("nodes", 1, "number of nodes: node1, node2, ...")
	reference := fs.Int("reference-nodes",
		0, "number of nodes beside them with kubelet, containerd, runc and the upstream plugins: ref1, ...")
	systemd := fs.Int("systemd-nodes", 0, "how many of the nodes, the last ones, have systemd as PID 1")
	metrics, snapshots := addOnFlags(fs)
	dual := fs.Bool("dual-stack", false, "up: pods, Services and machines have IPv6 addresses, too")
	zones := fs.Int("zones", 0, "up: in how many zones the nodes are, one after the other; 0: in none")
	seats := seatFlags(fs)
	size := sizeFlags(fs)
	fs.DurationVar(
		&s.wait,
		"wait",
		0,
		"leaks: how long it may take until nothing is left (a kubelet needs some seconds, as the kernel "+
			"may after down)",
	)
	if err := env.Parse(fs); err != nil {
		return nil, err
	}

	for _, p := range []*string{dir, bin, programs, images, deploy} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return nil, err
		}

		*p = abs
	}

	var err error
	if s.nodes, err = cluster.Nodes(*seats, *size, *count, *systemd, *reference); err != nil {
		return nil, &program.UsageError{Err: err}
	}

	s.Cluster = &cluster.Cluster{
		Dir:           *dir,
		Bin:           *bin,
		Programs:      *programs,
		Images:        *images,
		Deploy:        *deploy,
		Out:           env.Stdout,
		MetricsServer: *metrics,
		Snapshots:     *snapshots,
		Stack:         address.Stack{Dual: *dual},
		Zones:         *zones,
	}

	s.args, s.oci = fs.Args(), seats.OCI

	// For every kubectl that is run.
	return s, os.Setenv("KUBECACHEDIR", s.KubectlCache())
}

// operands is how many arguments a verb needs at least.
var operands = map[string]int{
	"logs":    2,
	"start":   2,
	"stop":    2,
	"kill":    2,
	"agent":   2,
	"cri":     2,
	"cni":     2,
	"csi":     2,
	"guest":   1,
	"reboot":  1,
	"cut":     1,
	"mend":    1,
	"exec":    2,
	"install": 1,
	"remove":  1,
}

func (s *session) do(ctx context.Context, verb string) error {
	if need := operands[verb]; len(s.args) < need {
		return &program.UsageError{
			Err: fmt.Errorf("%s needs %d arguments, see trivet-cluster --help", verb, need),
		}
	}

	switch verb {
	case "up":
		return s.up(ctx)
	case "down":
		return s.Down(ctx)
	case "status":
		return s.status()
	case "leaks":
		return s.AwaitNoLeaks(ctx, s.wait)
	case "demo":
		return s.demo(ctx)
	case "critest":
		return s.critest(ctx)
	case "logs":
		return s.logs()
	case "start":
		return s.restart()
	case "stop":
		return s.stop()
	case "kill":
		return s.kill()
	case "agent", "cri", "cni", "csi":
		return s.Exchange(ctx, s.args[0], verb, s.args[1])
	case "guest":
		return s.guest(ctx, s.args[0])
	case "reboot":
		return s.Reboot(ctx, s.args[0])
	case "cut", "mend":
		return s.Cable(s.args[0], verb == "mend")
	case "exec":
		return s.exec(ctx)
	case "install", "remove":
		return s.addOn(ctx, verb, s.args[0])
	}

	return &program.UsageError{Err: fmt.Errorf("%q is not something to do, see trivet-cluster --help", verb)}
}

// up takes everything down again when it is interrupted on the way.
func (s *session) up(ctx context.Context) error {
	err := s.Up(ctx, s.nodes)
	if err != nil && ctx.Err() != nil {
		fmt.Fprintln(s.Stdout, "interrupted: taking down what is up")
		return errors.Join(errors.New("interrupted"), s.Down(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return fmt.Errorf("%w\nthe cluster is left as it is to be looked at; make down removes it", err)
	}
	return nil
}

func (s *session) demo(ctx context.Context) error {
	plan, err := s.Plan()
	if err != nil {
		return fmt.Errorf("no cluster is up: %w", err)
	}

	d := demo.Demo{
		Kubectl:    filepath.Join(s.Bin, "kubectl"),
		Kubeconfig: s.Kubeconfig(),
		Manifests:  filepath.Join(s.Deploy, "demo"),
		Out:        s.Stdout,
		Nodes:      len(plan.Nodes),
		Class:      plan.Nodes[0].StorageClass(),
	}

	return d.Run(ctx)
}

// critest prints what passed, and is an error unless all did.
func (s *session) critest(ctx context.Context) error {
	results, err := s.Critest(ctx, s.oci, critestProcs)
	if err != nil {
		return err
	}

	verdict := critest.Judge(results)
	verdict.Print(s.Stdout, s.oci)
	if err := verdict.Err(); err != nil {
		report := filepath.Join(s.Dir, "critest", s.oci, "e2e.log")
		return fmt.Errorf("%w; %s has the output", err, report)
	}

	return nil
}
