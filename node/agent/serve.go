package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// serveHealth answers /healthz: kubeadm waits for it, and liveness checks of the service ask it.
func (a *Agent) serveHealth(ctx context.Context) error {
	k := a.cfg.Kubelet
	if k.HealthzPort == nil || *k.HealthzPort == 0 {
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

// serve starts the agent's API.
func (a *Agent) serve(_ context.Context, _ func(string, func(context.Context) error)) error {
	return nil
}
