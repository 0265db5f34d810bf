// Command trivet-netd is the network daemon of a node: it writes the node's network configuration for trivet-cni and keeps the routes to the
// other nodes' pods.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/trivet-node/trivet/cni/netd"
	"github.com/trivet-node/trivet/internal/program"
)

func main() {
	program.Main("trivet-netd", run)
}

func run(ctx context.Context, env *program.Env) error {
	o, err := parse(env)
	if err != nil {
		return err
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}
	if o.cleanup {
		return netd.Cleanup(o.Options)
	}
	program.SmallHeap()
	config, err := apiConfig(o.kubeconfig)
	if err != nil {
		return err
	}
	if o.installFrom != "" {
		if err := netd.Install(o.installFrom, o.Plugin); err != nil {
			return err
		}
	}
	listener, err := net.Listen("tcp", o.healthz)
	if err != nil {
		return &program.CantRunError{What: "health address: " + err.Error(), Do: "another trivet-netd may be running; choose another address by --healthz-address"}
	}
	return netd.Run(ctx, config, o.Options, env.Log, func(health func() error) { go serveHealth(ctx, listener, health, env.Log) })
}

// apiConfig reads the kubeconfig, or what a pod finds in its file system.
func apiConfig(kubeconfig string) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, &program.CantRunError{What: "API server: " + err.Error(), Do: "give --kubeconfig, or run as a pod with a service account"}
	}
	config.UserAgent = "trivet-netd/" + program.Version
	return config, nil
}

// serveHealth answers /healthz with 200, or with 500 and the reason.
func serveHealth(ctx context.Context, l net.Listener, health func() error, log *slog.Logger) {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := health(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Error("health endpoint ended", "err", err)
	}
}
