package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/auth"
	"github.com/trivet-node/trivet/node/kubeapi"
	"github.com/trivet-node/trivet/node/kubeletapi"
	"github.com/trivet-node/trivet/node/logrotate"
	"github.com/trivet-node/trivet/node/stats"
)

// serveHealth answers /healthz: kubeadm waits for it, and liveness checks of the service ask it.
func (a *Agent) serveHealth(ctx context.Context) error {
	k := a.cfg.Kubelet
	if *k.HealthzPort == 0 {
		return nil
	}

	address := net.JoinHostPort(k.HealthzBindAddress, strconv.Itoa(int(*k.HealthzPort)))
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%w; stop the other agent or choose another --healthz-port", err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()

	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}

	return nil
}

// serveAPI serves :10250 to those whom the API server lets in.
func (a *Agent) serveAPI() (certificate, server func(context.Context) error, err error) {
	k := a.cfg.Kubelet
	request := kubeapi.Request{NodeName: a.cfg.NodeName, Serving: true}
	for _, address := range append([]string{a.cfg.NodeName}, a.ips...) {
		request.Address(address)
	}

	cert := &kubeapi.Serving{
		CertFile:  k.TLSCertFile,
		KeyFile:   k.TLSPrivateKeyFile,
		CertDir:   a.cfg.CertDir,
		Bootstrap: k.ServerTLSBootstrap,
		Request:   request,
		Client:    a.client,
		Log:       a.log,
	}
	if err := cert.Start(); err != nil {
		return nil, nil, err
	}

	guard := auth.New(auth.Config{
		NodeName:     a.cfg.NodeName,
		ClientCAFile: k.Authentication.X509.ClientCAFile,
		Anonymous:    *k.Authentication.Anonymous.Enabled,
		TokenReview:  *k.Authentication.Webhook.Enabled,
		AlwaysAllow:  k.Authorization.Mode == "AlwaysAllow",
		TokenTTL:     k.Authentication.Webhook.CacheTTL.Duration,
		AllowTTL:     k.Authorization.Webhook.CacheAuthorizedTTL.Duration,
		DenyTTL:      k.Authorization.Webhook.CacheUnauthorizedTTL.Duration,
		Reviews:      auth.APIServer{Client: a.client},
	})

	cfg, err := a.endpoints()
	if err != nil {
		return nil, nil, err
	}

	cfg.Certificate, cfg.Guard = cert.Certificate, guard.Wrap
	return cert.Run, kubeletapi.New(cfg).Run, nil
}

// endpoints are what the node's API serves, by the settings and feature gates of kubelet.
func (a *Agent) endpoints() (kubeletapi.Config, error) {
	k := &a.cfg.Kubelet
	tls, err := k.TLS()
	if err != nil {
		return kubeletapi.Config{}, err
	}

	figures := stats.New(stats.Config{
		NodeName: a.cfg.NodeName,
		Root:     a.cfg.RootDir,
		Runtime:  a.runtime.Runtime,
		Images:   a.runtime.Images,
		Pods:     podLister{a}.Pods,
	})

	cfg := kubeletapi.Config{
		Address: net.JoinHostPort(k.Address, strconv.Itoa(int(k.Port))),
		TLS:     tls,
		Pods:    podLister{a},
		Runtime: a.runtime.Runtime,
		Stats:   figures,
		Configz: k,
		Log:     a.log,
		Off: kubeletapi.Off{
			Debugging:  !*k.EnableDebuggingHandlers,
			SystemLogs: !*k.EnableSystemLogHandler,
			Profiling:  !*k.EnableProfilingHandler,
			DebugFlags: !*k.EnableDebugFlagsHandler,
		},
		LogDir:         "/var/log",
		StreamIdleTime: k.StreamingIdleTimeout.Duration,
	}

	if k.Enabled("ContainerCheckpoint") {
		cfg.CheckpointDir = a.checkpoints()
	}

	if k.Enabled("ComponentStatusz") {
		cfg.Statusz = &kubeletapi.Status{Version: strings.TrimPrefix(KubernetesVersion, "v"),
			Started: a.started}
	}

	if k.Enabled("ComponentFlagz") {
		cfg.Flagz = a.cfg.Flags
	}

	return cfg, nil
}

// checkpoints is where the runtime writes the state of containers.
func (a *Agent) checkpoints() string { return filepath.Join(a.cfg.RootDir, "checkpoints") }

// rotateLogs makes the rotation of container logs.
func (a *Agent) rotateLogs() (func(context.Context) error, error) {
	k := &a.cfg.Kubelet
	size, err := resource.ParseQuantity(k.ContainerLogMaxSize)
	if err != nil {
		return nil, fmt.Errorf("containerLogMaxSize %q: %w", k.ContainerLogMaxSize, err)
	}

	rotator, err := logrotate.New(logrotate.Config{
		Runtime:  a.runtime.Runtime,
		Log:      a.log,
		MaxSize:  size.Value(),
		MaxFiles: *k.ContainerLogMaxFiles,
		Every:    k.ContainerLogInterval.Duration,
	})
	if err != nil {
		return nil, err
	}

	return rotator.Run, nil
}

type podLister struct{ a *Agent }

// Pods are the pods of the node.
func (l podLister) Pods() []*v1.Pod { return l.a.source.List() }
