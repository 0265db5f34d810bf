package main

import (
	"context"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// driver is what the three services of CSI have in common.
type driver struct {
	name       string
	node       string
	maxVolumes int64
	modify     bool
	mutable    []string

	// attach is whether volumes are attached to the node, maxAttached how many at the same time, if not 0.
	attach      bool
	maxAttached int64

	// strict is whether volumes that are staged are refused when they are to be detached.
	strict bool

	// mu is held during each call.
	mu      sync.Mutex
	store   *store
	devices map[string]*os.File // loop devices of block volumes; the kernel detaches them with this program
}

// identity answers what the driver is.
type identity struct {
	csi.UnimplementedIdentityServer
	*driver
}

// controller makes volumes and snapshots.
type controller struct {
	csi.UnimplementedControllerServer
	*driver
}

// nodeService mounts volumes.
type nodeService struct {
	csi.UnimplementedNodeServer
	*driver
}

// topologyKey is the real driver's.
const topologyKey = "topology.hostpath.csi/node"

func (d *driver) topology() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{topologyKey: d.node}}
}

// GetPluginInfo names the driver.
func (d identity) GetPluginInfo(
	context.Context,
	*csi.GetPluginInfoRequest,
) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "trivet-stand-in"}, nil
}

// Probe says that the driver is ready.
func (d identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

// GetPluginCapabilities names the services.
func (d identity) GetPluginCapabilities(
	context.Context, *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	answer := &csi.GetPluginCapabilitiesResponse{}
	for _, kind := range []csi.PluginCapability_Service_Type{
		csi.PluginCapability_Service_CONTROLLER_SERVICE,
		csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.PluginCapability{
			Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: kind}},
		})
	}
	return answer, nil
}

// volume finds a volume by the ID of a request.
func (d *driver) volume(id string) (*volume, error) {
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "the request has no volume ID")
	}

	v, ok := d.store.Volumes[id]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "there is no volume %s", id)
	}

	return v, nil
}

// page returns the part of a list that starts at a token and has so many entries at most, and the next token.
func page(ids []string, token string, most int32) (part []string, next string, err error) {
	start := 0
	if token != "" {
		start, err = strconv.Atoi(token)
		if err != nil || start < 0 || start > len(ids) {
			return nil, "", status.Errorf(codes.Aborted, "no list has the token %q", token)
		}
	}

	ids = ids[start:]
	if most > 0 && int(most) < len(ids) {
		return ids[:most], strconv.Itoa(start + int(most)), nil
	}

	return ids, "", nil
}

// add adds a path to a list once.
func add(paths []string, path string) []string {
	if slices.Contains(paths, path) {
		return paths
	}
	return append(paths, path)
}

func without(paths []string, path string) []string {
	return slices.DeleteFunc(paths, func(p string) bool { return p == path })
}
