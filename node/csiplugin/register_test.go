package csiplugin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/trivet-node/trivet/internal/testenv"
)

// plugin is a CSI driver that serves its registration and its node service on one socket.
type plugin struct {
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	about *registration.PluginInfo

	// notified gets the results that the plugin is told.
	notified chan *registration.RegistrationStatus
}

func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return p.about, nil
}

func (p *plugin) NotifyRegistrationStatus(
	_ context.Context,
	status *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	p.notified <- status
	return &registration.RegistrationStatusResponse{}, nil
}

func (p *plugin) NodeGetCapabilities(
	context.Context,
	*csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (p *plugin) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "node-id"}, nil
}

// serve makes the plugin's socket in a directory and returns its path.
func (p *plugin) serve(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(testenv.ShortDir(t), "reg.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}

	p.notified = make(chan *registration.RegistrationStatus, 1)
	server := grpc.NewServer()
	csi.RegisterNodeServer(server, p)
	registration.RegisterRegistrationServer(server, p)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return path
}

// csiDriver is what a driver named d says when it is asked.
func csiDriver() *registration.PluginInfo {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              "d",
		SupportedVersions: []string{"1.0.0"},
	}
}

func TestARegisteredDriverIsPublishedAndCanBeCalled(t *testing.T) {
	driver := &plugin{about: csiDriver()}
	path := driver.serve(t)
	p := &publisher{}
	looks := 0
	r := New(Config{
		Publisher: p,
		Changed:   func() { looks++ },
		Log:       slog.New(slog.DiscardHandler),
	})
	defer r.close()

	if err := r.register(t.Context(), path); err != nil {
		t.Fatal(err)
	}

	if got := <-driver.notified; !got.PluginRegistered {
		t.Errorf("the driver is told %v", got)
	}
	if d, err := r.Driver("d"); err != nil || d.Name != "d" {
		t.Errorf("driver %v, error %v", d, err)
	}
	if want := []string{"add d node-id"}; !slices.Equal(p.calls, want) || looks != 1 {
		t.Errorf("calls %q and %d looks, want %q and one", p.calls, looks, want)
	}
}

func TestWhatIsNotACSIDriverOfVersion1IsRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*registration.PluginInfo)
		want   string
		final  bool
	}{
		{
			name:   "another kind of plugin",
			change: func(i *registration.PluginInfo) { i.Type = registration.DevicePlugin },
			want:   "CSI plugins only",
			final:  true,
		},
		{
			name:   "version 0",
			change: func(i *registration.PluginInfo) { i.SupportedVersions = []string{"0.3.0", "10.0.0"} },
			want:   "1.x",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			driver := &plugin{about: csiDriver()}
			c.change(driver.about)
			path := driver.serve(t)
			p := &publisher{}
			r := New(Config{Publisher: p, Log: slog.New(slog.DiscardHandler)})

			err := r.register(t.Context(), path)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one that says %q", err, c.want)
			}
			if final := errors.Is(err, errNotServed); final != c.final {
				t.Errorf("no use in another attempt: %v, want %v", final, c.final)
			}

			if got := <-driver.notified; got.PluginRegistered || got.Error != err.Error() {
				t.Errorf("the driver is told %v", got)
			}
			if len(p.calls) != 0 {
				t.Errorf("the cluster is told %q", p.calls)
			}
		})
	}
}

// While the driver is entered into CSINode its socket vanishes, and with it the reason to have it there.
func TestADriverThatVanishesWhileItIsRegisteredIsWithdrawn(t *testing.T) {
	driver := &plugin{about: csiDriver()}
	path := driver.serve(t)
	p := &publisher{}
	r := New(Config{
		Publisher: p,
		Changed:   func() {},
		Log:       slog.New(slog.DiscardHandler),
	})
	p.added = func() { r.vanished(t.Context(), path) }

	r.appeared(t.Context(), path)
	r.running.Wait()

	if want := []string{"add d node-id", "remove d"}; !slices.Equal(p.calls, want) {
		t.Errorf("calls %q, want %q", p.calls, want)
	}
	if _, err := r.Driver("d"); err == nil {
		t.Error("a driver that is gone is registered")
	}
}
