// Command registrar stands in for csi-node-driver-registrar: it makes the CSI driver beside it in a pod known
// to the node's agent by the plugin registration API (v1), and says on /healthz whether it still does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// options by the names of the real program's flags.
type options struct {
	driver     string // socket of the driver, in this container
	endpoint   string // the same socket, as the agent sees it
	directory  string // in which the agent looks for sockets
	health     string // address that serves /healthz; empty: none
	perRequest time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.driver, "csi-address", "/run/csi/socket", "socket of the driver")
	flag.StringVar(&o.endpoint, "kubelet-registration-path", "", "the same socket, as kubelet sees it")
	flag.StringVar(
		&o.directory,
		"plugin-registration-path",
		"/registration",
		"directory of the socket to register on",
	)

	flag.StringVar(&o.health, "http-endpoint", "", "address that serves /healthz")
	flag.DurationVar(&o.perRequest, "timeout", 30*time.Second, "of a call of the driver")
	flag.Int("v", 0, "taken and ignored")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if err := o.run(ctx); err != nil {
		log.Fatal(err)
	}
}

func (o options) run(ctx context.Context) error {
	name, err := o.driverName(ctx)
	if err != nil {
		return err
	}

	// A registrar that was killed may have left its socket.
	path := filepath.Join(o.directory, name+"-reg.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}

	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}

	log.Printf("driver %s registers on %s", name, path)
	r := &registrar{name: name, endpoint: o.endpoint, refused: make(chan error, 1)}
	server := grpc.NewServer()
	registration.RegisterRegistrationServer(server, r)

	failed := make(chan error, 2)
	go func() { failed <- server.Serve(l) }()
	if o.health != "" {
		go func() { failed <- http.ListenAndServe(o.health, healthz(path)) }()
	}

	// The socket goes with the server: the agent forgets the driver.
	defer server.Stop()

	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	case err := <-r.refused:
		return err
	}
}

// driverName waits for the driver: the containers of a pod start in no order.
func (o options) driverName(ctx context.Context) (string, error) {
	conn, err := grpc.NewClient("unix://"+o.driver, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, o.perRequest)
	defer cancel()

	info, err := csi.NewIdentityClient(conn).GetPluginInfo(
		ctx,
		&csi.GetPluginInfoRequest{},
		grpc.WaitForReady(true),
	)
	if err != nil {
		return "", fmt.Errorf("ask the driver for its name: %w", err)
	}

	return info.GetName(), nil
}

// registrar answers the agent.
type registrar struct {
	registration.UnsafeRegistrationServer
	name, endpoint string
	refused        chan error
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              r.name,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus ends the program when it is refused: its next start registers again.
func (r *registrar) NotifyRegistrationStatus(
	_ context.Context,
	status *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered: %v %s", status.GetPluginRegistered(), status.GetError())
	if !status.GetPluginRegistered() {
		select {
		case r.refused <- fmt.Errorf("registration was refused: %s", status.GetError()):
		default:
		}
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// healthz is healthy while the socket is there: kubelet's directory may have been emptied.
func healthz(socket string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(socket); err != nil || r.URL.Path != "/healthz" {
			http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}
