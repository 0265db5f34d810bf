// Package agent puts the parts of the node agent together: New makes them, Run runs them and returns when all
// have ended. Nothing is decided here.
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
		return nil, &program.UsageError{
			Err: fmt.Errorf("--kubeconfig is missing: running without an API server is not served yet"),
		}
	}

	if err := checkFiles(&cfg.Kubelet); err != nil {
		return nil, err
	}

	host, err := cgroup.Open()
	if err != nil {
		return nil, &program.CantRunError{
			What: err.Error(),
			Do:   "mount cgroup v2 at /sys/fs/cgroup, or the v1 controllers below it",
		}
	}

	if err := checkMachine(&cfg.Kubelet, host.V2, "/proc"); err != nil {
		return nil, err
	}

	a := &Agent{
		cfg:     cfg,
		log:     log,
		host:    host,
		started: time.Now(),
		identity: kubeapi.Identity{
			NodeName:   cfg.NodeName,
			Kubeconfig: cfg.Kubeconfig,
			Bootstrap:  cfg.Bootstrap,
			CertDir:    cfg.CertDir,
		},
	}

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
	only, err := lock(ctx, a.cfg.RootDir)
	if err != nil {
		return err
	}
	defer only.Close()

	setProcess(&a.cfg.Kubelet, a.log)

	p := newParts(ctx)
	defer func() {
		p.end()
		for _, c := range a.conns {
			c.Close()
		}
	}()

	p.run("healthz", a.serveHealth)
	if err := a.waitForRuntime(p.ctx); err != nil {
		return err
	}
	if err := a.connect(); err != nil {
		return err
	}
	if err := a.build(p.ctx); err != nil {
		return err
	}
	if err := a.start(p); err != nil {
		return err
	}

	a.log.Info("node agent runs", "node", a.cfg.NodeName, "runtime", a.info.Name, "version", program.Version)
	<-p.ctx.Done()
	a.probes.Close()
	if err := context.Cause(p.ctx); err != nil && err != context.Canceled {
		return err
	}

	return nil
}

// start starts the parts. What a pod needs comes before the pods.
func (a *Agent) start(p *parts) error {
	p.run("events", silent(a.events.Run))
	p.run("heartbeat", silent(a.heart.Run))
	p.run("objects", silent(a.registered(a.objects.Run)))
	p.run("csi drivers", a.drivers.Run)
	p.run("csi node", a.csiNode.Init)
	rotate, err := a.rotateLogs()
	if err != nil {
		return err
	}

	p.run("log rotation", rotate)
	p.run("identity", a.keepIdentity)
	p.run("container runtime", func(ctx context.Context) error { return a.runtime.Watch(ctx, a.worker) })

	a.startStatic(p)
	p.run("pods", silent(a.registered(a.watchPods)))
	p.run("pod workers", silent(a.worker.Run))
	p.run("leftovers", silent(a.watchLeftovers))

	if !*a.cfg.Kubelet.EnableServer {
		return nil
	}

	certificate, server, err := a.serveAPI()
	if err != nil {
		return err
	}

	p.run("serving certificate", certificate)
	p.run("node API", server)
	return nil
}

// startStatic starts the sources of static pods. Files are known before pods are worked on.
func (a *Agent) startStatic(p *parts) {
	k := &a.cfg.Kubelet
	if k.StaticPodPath != "" {
		files := &podsource.Files{Source: a.source, Path: k.StaticPodPath, Node: a.cfg.NodeName}
		files.Load()
		p.run("static pods", files.Follow)
	}
	if k.StaticPodURL != "" {
		every := k.HTTPCheckFrequency.Duration
		page := podsource.NewPage(a.source, k.StaticPodURL, k.StaticPodURLHeader, a.cfg.NodeName, every)
		p.run("static pods by HTTP", silent(page.Follow))
	}
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

// parts are what runs of the agent, side by side. When one fails, all end.
type parts struct {
	ctx     context.Context //nolint:containedctx // lives as long as the parts
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
}

func newParts(ctx context.Context) *parts {
	p := &parts{}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	return p
}

// run runs a part until it returns, which it does when the context ends.
func (p *parts) run(name string, part func(context.Context) error) {
	p.running.Go(func() {
		if err := part(p.ctx); err != nil && p.ctx.Err() == nil {
			p.cancel(fmt.Errorf("%s: %w", name, err))
		}
	})
}

// end ends all parts and waits for them.
func (p *parts) end() {
	p.cancel(nil)
	p.running.Wait()
}

// silent is a part that does not fail.
func silent(run func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error { run(ctx); return nil }
}
