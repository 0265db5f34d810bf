package driver

import (
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/csi/attach"
)

// serveAttached is serve for an orchestrator that attaches volumes, up to two.
func serveAttached(t *testing.T) *fixture {
	t.Helper()
	attached, _, err := attach.Open(t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	return serveConfig(t, func(c *Config) { c.Attached = attached })
}

func (f *fixture) attach(t *testing.T, id, node string, readOnly bool, want codes.Code) {
	t.Helper()
	_, err := f.controller.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
		VolumeId:         id,
		NodeId:           node,
		VolumeCapability: mountCapability(),
		Readonly:         readOnly,
	})
	checkCode(t, "attach "+id+" to "+node, err, want)
}

func TestVolumeIsUsedWhileItIsAttached(t *testing.T) {
	f := serveAttached(t)
	stage := &csi.NodeStageVolumeRequest{
		VolumeId:          "plain",
		StagingTargetPath: "/s",
		VolumeCapability:  mountCapability(),
	}
	publish := &csi.NodePublishVolumeRequest{
		VolumeId:          "plain",
		StagingTargetPath: "/s",
		TargetPath:        "/t",
		VolumeCapability:  mountCapability(),
	}
	_, err := f.node.NodeStageVolume(t.Context(), stage)
	checkCode(t, "stage before", err, codes.FailedPrecondition)
	_, err = f.node.NodePublishVolume(t.Context(), publish)
	checkCode(t, "publish before", err, codes.FailedPrecondition)

	f.attach(t, "none", "a", false, codes.NotFound)
	f.attach(t, "plain", "b", false, codes.NotFound)
	f.attach(t, "plain", "", false, codes.InvalidArgument)
	f.attach(t, "plain", "a", true, codes.OK)
	f.attach(t, "plain", "a", true, codes.OK)
	f.attach(t, "plain", "a", false, codes.AlreadyExists)
	f.attach(t, "image", "a", false, codes.OK)
	f.attach(t, "raw", "a", false, codes.ResourceExhausted)

	_, err = f.node.NodeStageVolume(t.Context(), stage)
	checkCode(t, "stage", err, codes.OK)
	_, err = f.node.NodePublishVolume(t.Context(), publish)
	checkCode(t, "publish", err, codes.OK)
	if !f.publisher.use.ReadOnly {
		t.Error("what is attached read-only is published writable")
	}
	_, err = f.controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "plain"})
	checkCode(t, "delete", err, codes.FailedPrecondition)

	for _, node := range []string{"b", "a", ""} {
		_, err = f.controller.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{
			VolumeId: "plain",
			NodeId:   node,
		})
		checkCode(t, "detach", err, codes.OK)
	}
	_, err = f.controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "plain"})
	checkCode(t, "delete what is detached", err, codes.OK)
}

func TestAttachedVolumesAreListed(t *testing.T) {
	f := serveAttached(t)
	f.attach(t, "plain", "a", false, codes.OK)
	resp, err := f.controller.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range resp.GetEntries() {
		attached := slices.Equal(e.GetStatus().GetPublishedNodeIds(), []string{"a"})
		if id := e.GetVolume().GetVolumeId(); attached != (id == "plain") {
			t.Errorf("volume %s: attached %t", id, attached)
		}
	}
	info, err := f.node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || info.GetMaxVolumesPerNode() != 2 {
		t.Errorf("node %v, %v", info, err)
	}
}

func TestVolumesAreNotAttachedUnlessThatIsAskedFor(t *testing.T) {
	f := serve(t)
	f.attach(t, "plain", "a", false, codes.Unimplemented)
	resp, err := f.controller.ControllerGetCapabilities(t.Context(), &csi.ControllerGetCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range resp.GetCapabilities() {
		if c.GetRpc().GetType() == csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME {
			t.Error("it says that volumes have to be attached")
		}
	}
}
