// Command trivet-netd is the network daemon of a node: it writes the node's network configuration for
// trivet-cni and keeps the routes to the other nodes' pods.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/trivet-node/trivet/cni/netd"
	"github.com/trivet-node/trivet/cni/netdmetric"
	"github.com/trivet-node/trivet/cni/policy/filter"
	"github.com/trivet-node/trivet/cni/tally"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/internal/program"
)

func main() {
	program.Main("trivet-netd", run)
}

func run(ctx context.Context, env *program.Env) error {
	if len(env.Args) > 0 && env.Args[0] == "doctor" {
		env.Args = env.Args[1:]
		return diagnose(ctx, env)
	}

	o, err := parse(env, about)
	if err != nil {
		return err
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}
	if o.cleanup {
		return netd.Cleanup(o.Config)
	}

	// Before the plugin is installed, so that a node without credentials is left as it is.
	program.SmallHeap()
	klog.SetSlogLogger(env.Log)
	api, err := apiConfig(o.kubeconfig)
	if err != nil {
		return err
	}

	if o.installFrom != "" {
		if err := netd.Install(o.installFrom, o.Plugin); err != nil {
			return err
		}
	}

	metrics, stopCounting := newMetrics(o, env.Log)
	defer stopCounting()
	o.Passed = metrics.Passed
	o.Enforced = metrics.Enforced
	daemon, err := netd.New(api, o.Config, env.Log)
	if err != nil {
		return err
	}

	stop, err := serveHealth(o.healthz, daemon.Report, env.Log)
	if err != nil {
		return err
	}
	defer stop()

	scrapes, err := metric.Listen(ctx, o.metrics, metrics.Registry, env.Log)
	if err != nil {
		return err
	}

	env.Supervisor.Ready(env.Log, "keeping the network of this node")
	program.ForgetStart()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return scrapes.Run(ctx) })
	group.Go(func() error { return daemon.Run(ctx) })
	group.Go(func() error { env.Supervisor.Watch(ctx, env.Log, passes(daemon)); return nil })
	return group.Wait()
}

// passes fails when the daemon has ended no pass over the network for too long.
func passes(daemon *netd.Daemon) func(context.Context) error {
	return func(context.Context) error {
		if r := daemon.Report(); !r.Alive(time.Now()) {
			return fmt.Errorf("the last pass over the network began at %s", r.At.UTC().Format(time.RFC3339))
		}
		return nil
	}
}

// apiConfig reads the kubeconfig, or what a pod finds in its file system.
func apiConfig(kubeconfig string) (kube.Config, error) {
	load := kube.InCluster
	if kubeconfig != "" {
		load = func() (kube.Config, error) { return kube.Load(kubeconfig) }
	}

	cfg, err := load()
	if err != nil {
		return cfg, &program.CantRunError{
			What: "API server: " + err.Error(),
			Do:   "give --kubeconfig, or run as a pod with a service account",
		}
	}

	cfg.UserAgent = "trivet-netd/" + program.Version
	return cfg, nil
}

// newMetrics makes the metrics, and the file in which the plugin counts its calls if they are served. Without
// that file the daemon works nevertheless.
func newMetrics(o options, log *slog.Logger) (metrics *netdmetric.Set, stop func()) {
	if o.metrics == "" {
		return netdmetric.New(nil, nil), func() {}
	}

	// Only for what the kernel has counted.
	rules := filter.New(o.Network)
	file, err := tally.Create(tally.Path)
	if err != nil {
		log.Warn("calls of the plugin are not counted", "err", err)
		return netdmetric.New(nil, rules), func() {}
	}
	return netdmetric.New(file, rules), func() { _ = file.Close() }
}
