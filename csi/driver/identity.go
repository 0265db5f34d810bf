package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// identityService is the Identity service.
type identityService struct {
	csi.UnimplementedIdentityServer
	version  string
	copies   bool // see Config
	metadata bool // the SnapshotMetadata service is served
}

// GetPluginInfo returns the name and version of the driver.
func (s *identityService) GetPluginInfo(
	context.Context,
	*csi.GetPluginInfoRequest,
) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: Name, VendorVersion: s.version}, nil
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
