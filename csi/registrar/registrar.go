// Package registrar makes a CSI driver known to kubelet, or to the program in its place: it serves the plugin
// registration API (v1) on a socket in the directory that kubelet watches. kubelet calls GetInfo there, then
// the driver's NodeGetInfo, and writes the CSINode entry.
package registrar

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Config of a Registrar.
type Config struct {
	Driver   string // its CSI name
	Endpoint string // path of its socket, as kubelet sees it
	Log      *slog.Logger
}

// Registrar answers kubelet.
type Registrar struct {
	registerapi.UnsafeRegistrationServer
	cfg Config
}

// New returns a Registrar. It has no state but its configuration.
func New(cfg Config) *Registrar { return &Registrar{cfg: cfg} }

// Server returns a gRPC server with the registration service.
func (r *Registrar) Server() *grpc.Server {
	s := grpc.NewServer()
	registerapi.RegisterRegistrationServer(s, r)
	return s
}

// GetInfo returns what is registered. The version is that of the CSI major version, as kubelet checks it.
func (r *Registrar) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type:              registerapi.CSIPlugin,
		Name:              r.cfg.Driver,
		Endpoint:          r.cfg.Endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus takes kubelet's answer. A refusal is logged; kubelet tries again by itself.
func (r *Registrar) NotifyRegistrationStatus(
	_ context.Context,
	status *registerapi.RegistrationStatus,
) (*registerapi.RegistrationStatusResponse, error) {
	if status.GetPluginRegistered() {
		r.cfg.Log.Info("kubelet knows the driver")
	} else {
		r.cfg.Log.Error("kubelet refuses the driver", "err", status.GetError())
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}
