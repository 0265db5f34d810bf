package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/kube/review"
	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/node/auth"
	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/health"
	"github.com/trivet-node/trivet/node/identity"
	"github.com/trivet-node/trivet/node/kubeletapi"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/stats"
	"github.com/trivet-node/trivet/node/usage"
	"github.com/trivet-node/trivet/node/volume"
)

// serveHealth returns what answers /healthz until its context ends: kubeadm waits for it, and liveness checks
// of the service use it. Nobody is authenticated there, so it serves nothing else. With an empty address it
// returns at once.
func serveHealth(address string, checks *health.Checks) func(context.Context) error {
	return func(ctx context.Context) error {
		if address == "" {
			return nil
		}

		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("%w; stop the other agent or choose another --healthz-port", err)
		}

		mux := http.NewServeMux()
		checks.Register(mux)
		server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
		stop := context.AfterFunc(ctx, func() { server.Close() })
		defer stop()

		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}

// runAPI serves :10250 to those whom the API server lets in.
func (s *surroundings) runAPI(parts *parts, in podInputs, volumes *volume.Mounter) error {
	if !s.cfg.API.Enabled {
		return nil
	}

	serving, err := identity.NewServing(s.servingConfig())
	if err != nil {
		return err
	}

	requests := identity.RequestsOf(s.client)
	parts.run("serving certificate", func(ctx context.Context) error { return serving.Run(ctx, requests) })

	cfg := s.apiConfig(in)
	cfg.Certificate = serving.Certificate
	s.metrics.Certificates.Server = serving.Ends
	s.metrics.Count(s.runtime, in.pods, volumes.Present())
	s.metrics.CountProtected(in.tree.Protected)
	cfg.Count = s.metrics.Requests.Wrap
	cfg.Guard = auth.New(s.authConfig()).Wrap
	parts.run("node API", kubeletapi.New(cfg).Run)
	return nil
}

func (s *surroundings) servingConfig() identity.ServingConfig {
	api := s.cfg.API
	request := identity.Request{NodeName: s.cfg.NodeName}
	for _, address := range append([]string{s.cfg.NodeName}, s.ips...) {
		request.Address(address)
	}

	return identity.ServingConfig{
		CertFile:  api.CertFile,
		KeyFile:   api.KeyFile,
		CertDir:   s.cfg.Identity.CertDir,
		Bootstrap: api.ClusterSigner,
		Request:   request,
		Log:       s.log,

		RenewalFailed: s.metrics.Certificates.ServerRenewalFailed,
		Rotated:       s.metrics.Certificates.ServerRotated,
	}
}

func (s *surroundings) authConfig() auth.Config {
	api := s.cfg.API
	return auth.Config{
		NodeName:     s.cfg.NodeName,
		ClientCAFile: api.ClientCAFile,
		Anonymous:    api.Anonymous,
		TokenReview:  api.TokenReview,
		AlwaysAllow:  api.AlwaysAllow,
		TokenTTL:     api.TokenTTL,
		AllowTTL:     api.AllowTTL,
		DenyTTL:      api.DenyTTL,
		Reviews:      review.Of(s.client),
		Log:          s.log,
	}
}

// apiConfig is what the node's API serves, by the settings and feature gates of kubelet.
func (s *surroundings) apiConfig(in podInputs) kubeletapi.Config {
	api := s.cfg.API
	collector := newStats(s, in)
	cfg := kubeletapi.Config{
		Address: api.Address,
		TLS:     api.TLS,
		Pods:    podLister{in.pods},
		Runtime: s.runtime,
		Stats:   collector,
		Metrics: metricPages(s, collector, in.results),
		Health:  &s.health,
		Configz: s.cfg.Kubelet,
		Log:     s.log,
		Off: kubeletapi.Off{
			Debugging:  !api.Debugging,
			SystemLogs: !api.SystemLogs,
			Profiling:  !api.Profiling,
			DebugFlags: !api.DebugFlags,
		},
		PodLogDir:      s.logs().Root,
		LogDir:         "/var/log",
		StreamIdleTime: api.StreamIdleTime,
	}

	if s.cfg.Gates.Checkpoint {
		cfg.CheckpointDir = s.checkpoints()
	}

	if s.cfg.Gates.Statusz {
		cfg.Statusz = &kubeletapi.Status{
			Version: strings.TrimPrefix(KubernetesVersion, "v"),
			Started: s.started,
		}
	}

	if s.cfg.Gates.Flagz {
		cfg.Flagz = s.cfg.Flags
	}

	return cfg
}

// newStats makes what answers the statistics endpoints.
func newStats(s *surroundings, in podInputs) *stats.Collector {
	daemons := &usage.Daemons{Runtime: strings.TrimPrefix(s.cfg.RuntimeEndpoint, "unix://")}
	meter := usage.New(usage.Config{
		Groups:  s.cgroups,
		V2:      s.cgroups.V2,
		Tree:    in.tree,
		Runtime: s.runtime,
		Daemons: daemons.Groups,
	})

	return stats.New(stats.Config{
		NodeName: s.cfg.NodeName,
		Root:     s.cfg.RootDir,
		Meter:    meter,
		Storage:  in.storage,
		Drivers:  in.csi,
		Runtime:  s.runtime,
		Pods:     in.pods.List,
		Machine:  s.machine,
	})
}

// metricPages are the pages of metrics by their names below /metrics.
func metricPages(
	s *surroundings, collector *stats.Collector, results *probe.Results,
) map[string]http.Handler {
	s.metrics.Registry.MustRegister(collector)
	probes := prometheus.NewRegistry()
	probes.MustRegister(results)

	pages := map[string]http.Handler{
		"":         s.metrics.Handler(s.log),
		"resource": exposition.NewPage(collector.Resource),
		"cadvisor": exposition.NewPage(collector.Cadvisor),
		"probes":   metric.TextHandler(probes, s.log),
	}

	// The other daemons of the node have no port that others reach: who may read the agent's metrics reads
	// theirs here.
	for _, daemon := range []string{"trivet-cri", "trivet-csi", "trivet-netd"} {
		pages[daemon] = metric.Relay(filepath.Join(metric.SocketDir, daemon+".sock"), s.log)
	}

	return pages
}

// podLister is the pods of the node for the API.
type podLister struct{ source *podsource.Source }

// Pods returns the pods that run on the node.
func (l podLister) Pods() []*v1.Pod { return l.source.List() }
