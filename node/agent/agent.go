// Package agent puts the parts of the node agent together. Run makes them one after the other, each with what
// it needs of those before it, starts them, and returns when all have ended. What the parts do is decided in
// their own packages.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/metric/rpc"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/supervisor"
	"github.com/trivet-node/trivet/internal/trace"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/csivolume/inuse"
	"github.com/trivet-node/trivet/node/eviction"
	"github.com/trivet-node/trivet/node/health"
	"github.com/trivet-node/trivet/node/identity"
	"github.com/trivet-node/trivet/node/kubeletmetric"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/runtime"
)

// KubernetesVersion is the version of kubelet whose behaviour is served; tools compare it with the API
// server's.
const KubernetesVersion = "v1.37.2"

// surroundings are what there is before the first part: the machine, the container runtime, which has
// answered, and the API server, which may not have.
type surroundings struct {
	cfg      config.Config
	log      *slog.Logger
	started  time.Time
	machine  machine.Machine
	cgroups  *cgroup.Host
	runtime  *runtime.Client
	info     runtime.Info // the runtime's
	identity *identity.Identity
	client   *kube.Client
	ips      []string // of the node, primary first
	traces   *trace.Provider
	metrics  *kubeletmetric.Set

	// supervisor hears that the agent runs, and whether it still works.
	supervisor supervisor.Supervisor
	health     health.Checks

	// pressures are what the node is short of: the evictor finds them, its status and admission have them.
	pressures *eviction.Pressures

	// inUse are the volumes that must not be detached: the mounter of CSI volumes finds them, the node's
	// status has them.
	inUse inuse.Volumes
}

// Run runs the node until ctx ends. Containers are left running.
func Run(ctx context.Context, cfg config.Config, env *program.Env) error {
	s := surroundings{
		cfg:        cfg,
		log:        env.Log,
		supervisor: env.Supervisor,
		started:    time.Now(),
		pressures:  &eviction.Pressures{},
	}
	if err := s.check(); err != nil {
		return err
	}

	// Two agents with one root directory would undo each other's work.
	only, err := lock(ctx, cfg.RootDir)
	if err != nil {
		return err
	}
	defer only.Close()

	setProcess(cfg.Process, s.log)
	s.metrics = newMetrics(cfg, s.cgroups.V2, s.started)

	if s.traces, err = newTraces(ctx, cfg, s.log); err != nil {
		return err
	}
	defer s.traces.Flush()

	// The connections are closed when all parts have ended: what they do last is not cut short.
	runtimeConns, err := s.dialRuntime()
	if err != nil {
		return err
	}
	defer runtimeConns.close()

	parts := newParts(ctx)
	defer parts.end()

	parts.run("healthz", serveHealth(cfg.HealthAddress, &s.health))

	// kubeadm and dpkg wait for this; it must not depend on the runtime, which may be installed after.
	s.supervisor.Ready(s.log, "waiting for the container runtime")

	// The runtime may be started after the agent; all other parts need it.
	if err := s.awaitRuntime(parts.ctx); err != nil {
		return err
	}

	// The API server is not waited for: it may be a static pod of this node.
	if err := s.connectAPI(); err != nil {
		return err
	}

	if err := parts.together(func() error { return s.runParts(parts) }); err != nil {
		return err
	}

	ready(&s)
	return parts.wait()
}

// ready says that the node runs, and lets go of what its start has needed.
func ready(s *surroundings) {
	name := s.cfg.NodeName
	s.supervisor.Ready(s.log, "runs node "+name+" on "+s.info.Name)
	s.log.Info("node agent runs", "node", name, "runtime", s.info.Name, "version", program.Version)
	program.ForgetStart()
}

// check ends the start where something is missing that only a person can mend.
func (s *surroundings) check() error {
	if s.cfg.Identity.Kubeconfig == "" {
		return &program.UsageError{
			Err: errors.New("--kubeconfig is missing: running without an API server is not served yet"),
		}
	}

	if err := checkFiles(s.cfg.API); err != nil {
		return err
	}

	var err error
	if s.cgroups, err = cgroup.Open(); err != nil {
		return &program.CantRunError{
			What: err.Error(),
			Do:   "mount cgroup v2 at /sys/fs/cgroup, or the v1 controllers below it",
		}
	}

	return checkMachine(s.cfg, s.cgroups.V2, s.machine)
}

// lock makes this process the only agent below the root directory.
func lock(ctx context.Context, root string) (*os.File, error) {
	if err := os.MkdirAll(root, 0o750); err != nil {
		return nil, err
	}
	what := "root directory " + root + " (--root-dir)"
	return lockfile.Take(ctx, filepath.Join(root, "trivet-node.lock"), what)
}

// newTraces makes the provider of spans, nil if none are wanted.
func newTraces(ctx context.Context, cfg config.Config, log *slog.Logger) (*trace.Provider, error) {
	traces, err := trace.New(ctx, trace.Config{
		Endpoint:          cfg.Tracing.Endpoint,
		Service:           "trivet-node",
		Node:              cfg.NodeName,
		SamplesPerMillion: cfg.Tracing.SamplesPerMillion,
		Log:               log,
	})
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}
	return traces, nil
}

// connectAPI finds the node's identity, or how to get it, and the node's addresses.
func (s *surroundings) connectAPI() error {
	var err error
	s.identity, err = identity.New(identity.Config{
		NodeName:   s.cfg.NodeName,
		Kubeconfig: s.cfg.Identity.Kubeconfig,
		Bootstrap:  s.cfg.Identity.Bootstrap,
		CertDir:    s.cfg.Identity.CertDir,
		UserAgent:  "trivet-node/" + program.Version,
		Log:        s.log,

		RenewalFailed: s.metrics.Certificates.ClientRenewalFailed,
	})
	if err != nil {
		return err
	}

	s.metrics.Certificates.Client = s.identity.Ends
	kube.Measure(s.metrics.Client)
	api := s.identity.API()
	api.Limits.Relist = s.cfg.Identity.Relist
	if s.client, err = kube.New(api); err != nil {
		return err
	}

	s.ips, err = nodeIPs(s.cfg.Node.IPs, api)
	return err
}

// nodeIPs are the configured addresses, or the one from which the API server is reached.
func nodeIPs(configured []netip.Addr, api kube.Config) ([]string, error) {
	var out []string
	for _, ip := range configured {
		out = append(out, ip.String())
	}

	if len(out) > 0 {
		return out, nil
	}

	host, port, err := api.Server()
	if err != nil {
		return nil, addressError(err)
	}

	// This sends nothing: it only looks up the route.
	conn, err := net.Dial("udp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, addressError(err)
	}
	defer conn.Close()

	local, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return []string{local}, err
}

func addressError(err error) error {
	return &program.CantRunError{What: "the node's address is not known: " + err.Error(), Do: "set --node-ip"}
}

// conns are connections to the container runtime.
type conns []*grpc.ClientConn

func (c conns) close() {
	for _, one := range c {
		one.Close()
	}
}

// reconnect finds a runtime that was restarted again at once: gRPC's default waits up to two minutes.
func reconnect() grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		MinConnectTimeout: time.Second,
		Backoff: backoff.Config{
			BaseDelay:  50 * time.Millisecond,
			Multiplier: 1.6,
			MaxDelay:   time.Second,
		},
	})
}

// dialRuntime makes the client of the container runtime. It does not connect yet.
func (s *surroundings) dialRuntime() (conns, error) {
	options := append(s.traces.ClientOptions(), rpc.DialOptions(s.metrics.Runtime.Observe)...)
	options = append(options, reconnect())
	rt, err := socket.Dial(s.cfg.RuntimeEndpoint, options...)
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}

	all, images := conns{rt}, rt
	if s.cfg.ImageEndpoint != s.cfg.RuntimeEndpoint {
		if images, err = socket.Dial(s.cfg.ImageEndpoint, options...); err != nil {
			all.close()
			return nil, &program.UsageError{Err: err}
		}

		all = append(all, images)
	}

	s.runtime = runtime.New(rt, images, s.log)
	s.runtime.Relisted = s.metrics.Runtime.Relisted
	return all, nil
}

// runtimeCheck is how often it is asked whether the runtime has come up.
const runtimeCheck = 200 * time.Millisecond

// awaitRuntime waits until the runtime answers.
func (s *surroundings) awaitRuntime(ctx context.Context) error {
	for range retry.Every(ctx, runtimeCheck) {
		s.supervisor.Alive(s.log)
		info, err := s.runtime.Info(ctx)
		if err == nil {
			s.info = info
			return nil
		}

		if ctx.Err() == nil {
			s.log.Warn("waiting for the container runtime", "endpoint", s.cfg.RuntimeEndpoint, "err", err)
		}
	}

	return context.Cause(ctx)
}
