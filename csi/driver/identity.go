package driver

import (
	"context"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// UserAgent begins that of the controllers of this process. By it their calls are told from others'.
	UserAgent = "trivet-csi-controllers"

	// CalledByOthers is the entry of the manifest in GetPluginInfo with the names of methods, separated by
	// commas, that controllers of this process call and somebody else has called, too.
	CalledByOthers = "calledByOthers"
)

// others notes who does what the controllers of this process do, as a sidecar beside them does. It is safe
// for concurrent use.
type others struct {
	own []string // see Config
	log *slog.Logger

	// mu guards what follows.
	mu     sync.Mutex
	called []string // names of methods, each once
}

func (o *others) note(ctx context.Context, method string) {
	if !slices.Contains(o.own, method) {
		return
	}

	agent := strings.Join(metadata.ValueFromIncomingContext(ctx, "user-agent"), "")
	if strings.HasPrefix(agent, UserAgent) {
		return
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	name := path.Base(method)
	if slices.Contains(o.called, name) {
		return
	}
	o.called = append(o.called, name)
	o.log.Warn("somebody else calls what a controller of this driver calls: leave its work out of"+
		" --controllers, or end the sidecar that does it", "method", name, "caller", agent)
}

// manifest is what GetPluginInfo says of them.
func (o *others) manifest() map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.called) == 0 {
		return nil
	}
	return map[string]string{CalledByOthers: strings.Join(o.called, ",")}
}

// identityService is the Identity service.
type identityService struct {
	csi.UnimplementedIdentityServer
	version  string
	copies   bool // see Config
	metadata bool // the SnapshotMetadata service is served
	others   *others
}

// GetPluginInfo returns the name and version of the driver, and what others do that it does itself.
func (s *identityService) GetPluginInfo(
	context.Context,
	*csi.GetPluginInfoRequest,
) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{
		Name:          Name,
		VendorVersion: s.version,
		Manifest:      s.others.manifest(),
	}, nil
}

// GetPluginCapabilities says what callers may expect: controller services, volumes that can be reached from
// some nodes only, and growth of volumes in use.
func (s *identityService) GetPluginCapabilities(
	context.Context,
	*csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	served := []csi.PluginCapability_Service_Type{
		csi.PluginCapability_Service_CONTROLLER_SERVICE,
		csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
	}
	if s.copies {
		served = append(served,
			csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE,
			csi.PluginCapability_Service_SNAPSHOT_ACCESSIBILITY_CONSTRAINTS,
		)
	}
	if s.metadata {
		served = append(served, csi.PluginCapability_Service_SNAPSHOT_METADATA_SERVICE)
	}

	resp := &csi.GetPluginCapabilitiesResponse{}
	for _, t := range served {
		service := &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: t}}
		resp.Capabilities = append(resp.Capabilities, &csi.PluginCapability{Type: service})
	}

	online := &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE}
	expansion := &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: online}
	resp.Capabilities = append(resp.Capabilities, &csi.PluginCapability{Type: expansion})
	return resp, nil
}

// Probe returns that the driver is ready: it serves only after all volumes were recovered.
func (*identityService) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}
