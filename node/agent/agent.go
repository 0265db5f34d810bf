// Package agent puts the parts of the node agent together: New makes them, Run runs them and returns when all have ended. Nothing is decided
// here.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/event"
	"github.com/trivet-node/trivet/node/heartbeat"
	"github.com/trivet-node/trivet/node/imageaccess"
	"github.com/trivet-node/trivet/node/kubeapi"
	"github.com/trivet-node/trivet/node/objects"
	"github.com/trivet-node/trivet/node/podcgroup"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/volume"
)

// Agent is the node agent.
type Agent struct {
	cfg      config.Config
	log      *slog.Logger
	identity kubeapi.Identity
	conns    []*grpc.ClientConn
	client   *kubeapi.Client
	join     func(context.Context) error // gets the identity that the client waits for
	info     runtime.Info
	ips      []string
	started  time.Time

	runtime *runtime.Client
	host    *cgroup.Host
	cgroups *podcgroup.Tree
	events  *event.Recorder
	heart   *heartbeat.Heart
	objects *objects.Cache
	drivers *csiplugin.Registry
	csiNode *csiplugin.CSINodes
	volumes *volume.Manager
	probes  *probe.Manager
	source  *podsource.Source
	access  *imageaccess.Access
	worker  *podworker.Worker
}

// New checks the surroundings. It connects to nothing.
func New(cfg config.Config, log *slog.Logger) (*Agent, error) {
	if cfg.Kubeconfig == "" {
		return nil, &program.UsageError{Err: fmt.Errorf("--kubeconfig is missing: running without an API server is not served yet")}
	}
	if err := checkFiles(&cfg.Kubelet); err != nil {
		return nil, err
	}
	host, err := cgroup.Open()
	if err != nil {
		return nil, &program.CantRunError{What: err.Error(), Do: "mount cgroup v2 at /sys/fs/cgroup, or the v1 controllers below it"}
	}
	if err := checkMachine(&cfg.Kubelet, host.V2, "/proc"); err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, log: log, host: host, started: time.Now(),
		identity: kubeapi.Identity{NodeName: cfg.NodeName, Kubeconfig: cfg.Kubeconfig, Bootstrap: cfg.Bootstrap, CertDir: cfg.CertDir}}
	// A runtime that was restarted is found again at once: gRPC's default waits up to two minutes.
	reconnect := grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second,
		Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}})
	rt, err := socket.Dial(cfg.RuntimeEndpoint, reconnect)
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}
	images := rt
	if cfg.ImageEndpoint != cfg.RuntimeEndpoint {
		if images, err = socket.Dial(cfg.ImageEndpoint, reconnect); err != nil {
			return nil, &program.UsageError{Err: err}
		}
		a.conns = append(a.conns, images)
	}
	a.conns = append(a.conns, rt)
	a.runtime = runtime.New(rt, images, log)
	return a, nil
}

// Run runs the node until ctx ends. Containers are left running.
func (a *Agent) Run(ctx context.Context) error {
	only, err := lock(a.cfg.RootDir)
	if err != nil {
		return err
	}
	defer only.Close()
	setProcess(&a.cfg.Kubelet, a.log)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	defer func() {
		cancel(nil)
		parts.Wait()
		for _, c := range a.conns {
			c.Close()
		}
	}()
	run := func(name string, part func(context.Context) error) {
		parts.Go(func() {
			if err := part(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	run("healthz", a.serveHealth)
	if err := a.waitForRuntime(ctx); err != nil {
		return err
	}
	if err := a.connect(); err != nil {
		return err
	}
	if err := a.build(ctx); err != nil {
		return err
	}
	run("events", silent(a.events.Run))
	run("heartbeat", silent(a.heart.Run))
	run("objects", silent(a.registered(a.objects.Run)))
	run("csi drivers", a.drivers.Run)
	run("csi node", a.csiNode.Init)
	rotate, err := a.rotateLogs()
	if err != nil {
		return err
	}
	run("log rotation", rotate)
	run("identity", a.keepIdentity)
	run("container runtime", func(ctx context.Context) error { return a.runtime.Watch(ctx, a.worker) })
	if path := a.cfg.Kubelet.StaticPodPath; path != "" {
		files := &podsource.Files{Source: a.source, Path: path, Node: a.cfg.NodeName}
		files.Load()
		run("static pods", files.Follow)
	}
	if url := a.cfg.Kubelet.StaticPodURL; url != "" {
		k := &a.cfg.Kubelet
		page := podsource.NewPage(a.source, url, k.StaticPodURLHeader, a.cfg.NodeName, k.HTTPCheckFrequency.Duration)
		run("static pods by HTTP", silent(page.Follow))
	}
	run("pods", silent(a.registered(a.watchPods)))
	run("pod workers", silent(a.worker.Run))
	run("leftovers", silent(a.watchLeftovers))
	if k := a.cfg.Kubelet; k.EnableServer == nil || *k.EnableServer {
		certificate, server, err := a.serveAPI()
		if err != nil {
			return err
		}
		run("serving certificate", certificate)
		run("node API", server)
	}
	a.log.Info("node agent runs", "node", a.cfg.NodeName, "runtime", a.info.Name, "version", program.Version)
	<-ctx.Done()
	a.probes.Close()
	if err := context.Cause(ctx); err != nil && err != context.Canceled {
		return err
	}
	return nil
}

func silent(run func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error { run(ctx); return nil }
}

// waitForRuntime waits until the runtime answers: it may be started after the agent.
func (a *Agent) waitForRuntime(ctx context.Context) error {
	for told := false; ; {
		info, err := a.runtime.Info(ctx)
		if err == nil {
			a.info = info
			return nil
		}
		if !told && ctx.Err() == nil {
			a.log.Warn("waiting for the container runtime", "endpoint", a.cfg.RuntimeEndpoint, "err", err)
			told = true
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// keepIdentity joins the cluster, if the node has not, and renews its certificate.
func (a *Agent) keepIdentity(ctx context.Context) error {
	if err := a.join(ctx); err != nil || !*a.cfg.Kubelet.RotateCertificates {
		return err
	}
	return a.identity.Rotate(ctx, a.client, a.log)
}

// registered runs a part that follows the API once the Node exists: its labels and taints decide about pods,
// and a list that is tried before there is an API server is tried again half a minute after there is one.
func (a *Agent) registered(part func(context.Context)) func(context.Context) {
	return func(ctx context.Context) {
		select {
		case <-a.heart.Registered():
			part(ctx)
		case <-ctx.Done():
		}
	}
}

func (a *Agent) watchPods(ctx context.Context) { a.source.Watch(ctx, a.client.Core, a.cfg.NodeName) }
