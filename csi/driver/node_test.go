package driver

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
)

func TestNodeCallsReachThePublisher(t *testing.T) {
	f := serve(t)
	ctx := t.Context()
	_, err := f.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId:          "plain",
		StagingTargetPath: "/stage",
		VolumeCapability:  mountCapability("noatime"),
	})

	checkCode(t, "stage", err, codes.OK)
	if u := f.publisher.use; u.ReadOnly || !u.SingleWriter || !slices.Equal(u.Options, []string{"noatime"}) {
		t.Errorf("staged as %+v", u)
	}

	_, err = f.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId:         "plain",
		TargetPath:       "/target",
		VolumeCapability: mountCapability(),
		Readonly:         true,
	})

	checkCode(t, "publish", err, codes.OK)
	if !f.publisher.use.ReadOnly {
		t.Errorf("published as %+v", f.publisher.use)
	}

	_, err = f.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{
		VolumeId:   "plain",
		TargetPath: "/target",
	})

	checkCode(t, "unpublish", err, codes.OK)
	f.publisher.err = volume.ErrInUse
	_, err = f.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{
		VolumeId:          "plain",
		StagingTargetPath: "/stage",
	})

	checkCode(t, "unstage", err, codes.FailedPrecondition)

	want := []string{
		"stage plain /stage",
		"publish plain /target",
		"unpublish plain /target",
		"unstage plain /stage",
	}
	if !slices.Equal(f.publisher.calls, want) {
		t.Errorf("calls %q", f.publisher.calls)
	}
}

func TestNodeSaysHowManyVolumesItMayHave(t *testing.T) {
	for most, f := range map[int64]*fixture{
		0: serve(t),
		7: serveConfig(t, func(c *Config) { c.VolumesMost = 7 }),
	} {
		info, err := f.node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
		if err != nil || info.GetMaxVolumesPerNode() != most {
			t.Errorf("node %v, %v, want %d volumes", info, err, most)
		}
	}
}

// inlineID is one that kubelet makes up.
const inlineID = "csi-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func inlineRequest(attributes map[string]string) *csi.NodePublishVolumeRequest {
	attributes["csi.storage.k8s.io/ephemeral"] = "true"
	capability := mountCapability()
	capability.GetMount().FsType = ""
	return &csi.NodePublishVolumeRequest{
		VolumeId:         inlineID,
		TargetPath:       "/target",
		VolumeCapability: capability,
		VolumeContext:    attributes,
	}
}

// Without podInfoOnMount nothing tells an inline volume from one that is gone.
func TestInlineVolumeThatIsNotSaidToBeOne(t *testing.T) {
	f := serve(t)
	request := inlineRequest(map[string]string{})
	delete(request.VolumeContext, "csi.storage.k8s.io/ephemeral")
	for path, want := range map[string]bool{"": true, "/stage": false} {
		request.StagingTargetPath = path
		_, err := f.node.NodePublishVolume(t.Context(), request)
		checkCode(t, "publish", err, codes.NotFound)
		if said := strings.Contains(fmt.Sprint(err), "podInfoOnMount: true"); said != want {
			t.Errorf("staged at %q: %v", path, err)
		}
	}
}

func TestInlineVolumeIsMadeAndDeletedWithItsPod(t *testing.T) {
	f := serve(t)
	request := inlineRequest(map[string]string{
		"size":                        "5Mi",
		"reserve":                     "false",
		"csi.storage.k8s.io/pod.name": "pod",
	})
	if _, err := f.node.NodePublishVolume(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if got := f.volumes.request; got.Required != 5<<20 || got.Reserve != nil || got.FSType != "btrfs" {
		t.Errorf("request %+v", got)
	}

	// The fake gives every volume the ID vol-1.
	want := []string{"stage vol-1 /inline/vol-1/globalmount", "publish vol-1 /target"}
	if !slices.Equal(f.publisher.calls, want) {
		t.Errorf("calls %q, want %q", f.publisher.calls, want)
	}

	id := volume.ID("inline/" + inlineID)
	f.volumes.all = append(f.volumes.all, volume.Volume{Spec: volume.Spec{ID: id, Access: volume.Filesystem}})
	f.publisher.calls = nil
	unpublish := &csi.NodeUnpublishVolumeRequest{VolumeId: inlineID, TargetPath: "/target"}
	if _, err := f.node.NodeUnpublishVolume(t.Context(), unpublish); err != nil {
		t.Fatal(err)
	}

	want = []string{"unpublish " + id + " /target", "unstage " + id + " /inline/" + id + "/globalmount"}
	if !slices.Equal(f.publisher.calls, want) || !slices.Equal(f.volumes.deleted, []string{id}) {
		t.Errorf("calls %q, want %q; deleted %q", f.publisher.calls, want, f.volumes.deleted)
	}

	stats := &csi.NodeGetVolumeStatsRequest{VolumeId: inlineID, VolumePath: "/target"}
	if _, err := f.node.NodeGetVolumeStats(t.Context(), stats); err != nil {
		t.Errorf("stats: %v", err)
	}
}

func TestInlineVolumeThatIsGoneIsUnpublished(t *testing.T) {
	f := serve(t)
	unpublish := &csi.NodeUnpublishVolumeRequest{VolumeId: inlineID, TargetPath: "/target"}
	if _, err := f.node.NodeUnpublishVolume(t.Context(), unpublish); err != nil {
		t.Fatal(err)
	}
	want := []string{"unpublish " + volume.ID("inline/"+inlineID) + " /target"}
	if !slices.Equal(f.publisher.calls, want) || len(f.volumes.deleted) > 0 {
		t.Errorf("calls %q, want %q; deleted %q", f.publisher.calls, want, f.volumes.deleted)
	}
}

func TestInlineVolumeThatCannotBeIsRefused(t *testing.T) {
	f := serve(t)
	for _, attributes := range []map[string]string{
		{"size": "much"},
		{"size": "-1"},
		{"colour": "red"},
		{"reserve": "true"},
		{"backend": "image"},
	} {
		_, err := f.node.NodePublishVolume(t.Context(), inlineRequest(attributes))
		checkCode(t, fmt.Sprint(attributes), err, codes.InvalidArgument)
	}

	image := inlineRequest(map[string]string{"size": "1Mi"})
	image.VolumeCapability.GetMount().FsType = "xfs"
	_, err := f.node.NodePublishVolume(t.Context(), image)
	checkCode(t, "xfs", err, codes.InvalidArgument)
}

// Everybody who may make a pod may ask for inline volumes: they have what was set aside for them, and no
// more.
func TestInlineVolumesHaveABound(t *testing.T) {
	publish := func(f *fixture, size string) error {
		_, err := f.node.NodePublishVolume(t.Context(), inlineRequest(map[string]string{"size": size}))
		return err
	}

	checkCode(t, "by default", publish(serveInline(t, 0), "1Mi"), codes.FailedPrecondition)

	f := serve(t)
	checkCode(t, "all bytes there are", publish(f, "9223372036854775807"), codes.ResourceExhausted)

	other := volume.Spec{ID: volume.ID("inline/other"), Name: "inline/other", Size: 60 << 20}
	f.volumes.all = append(f.volumes.all, volume.Volume{Spec: other})
	checkCode(t, "5 MiB where 4 are left", publish(f, "5Mi"), codes.ResourceExhausted)
	checkCode(t, "4 MiB where 4 are left", publish(f, "4Mi"), codes.OK)

	// One that was made while more was allowed is published again.
	made := volume.Spec{ID: volume.ID("inline/" + inlineID), Name: "inline/" + inlineID, Size: 5 << 20}
	f.volumes.all = append(f.volumes.all, volume.Volume{Spec: made})
	checkCode(t, "one that exists", publish(f, "5Mi"), codes.OK)
}

func TestVolumeStats(t *testing.T) {
	f := serve(t)
	f.publisher.usage = publish.Usage{
		Total:       10,
		Used:        4,
		Available:   6,
		InodesTotal: 5,
	}

	for id, units := range map[string]int{"plain": 2, "raw": 1} {
		r := &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: "/target"}
		resp, err := f.node.NodeGetVolumeStats(t.Context(), r)
		if err != nil || len(resp.GetUsage()) != units || resp.GetUsage()[0].GetTotal() != 10 {
			t.Errorf("%s: %v, %v", id, resp, err)
		}
	}
}

// Fields that the spec requires are checked before anything is done.
func TestRequiredFields(t *testing.T) {
	f := serve(t)
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"DeleteVolume": func() error {
			_, err := f.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{})
			return err
		},
		"ValidateVolumeCapabilities": func() error {
			r := &csi.ValidateVolumeCapabilitiesRequest{VolumeId: "plain"}
			_, err := f.controller.ValidateVolumeCapabilities(ctx, r)
			return err
		},
		"ControllerExpandVolume": func() error {
			r := &csi.ControllerExpandVolumeRequest{VolumeId: "plain"}
			_, err := f.controller.ControllerExpandVolume(ctx, r)
			return err
		},
		"ControllerGetVolumeHealth": func() error {
			_, err := f.controller.ControllerGetVolumeHealth(ctx, &csi.ControllerGetVolumeHealthRequest{})
			return err
		},
		"NodeStageVolume": func() error {
			_, err := f.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: "plain"})
			return err
		},
		"NodeUnstageVolume": func() error {
			_, err := f.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: "plain"})
			return err
		},
		"NodePublishVolume": func() error {
			_, err := f.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{VolumeId: "plain"})
			return err
		},
		"NodeUnpublishVolume": func() error {
			_, err := f.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{TargetPath: "/t"})
			return err
		},
		"NodeGetVolumeStats": func() error {
			_, err := f.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: "plain"})
			return err
		},
		"NodeExpandVolume": func() error {
			_, err := f.node.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: "plain"})
			return err
		},
	} {
		checkCode(t, name, call(), codes.InvalidArgument)
	}

	if len(f.publisher.calls)+len(f.volumes.deleted) > 0 {
		t.Errorf("calls %q, deleted %q", f.publisher.calls, f.volumes.deleted)
	}
}

func TestIdentity(t *testing.T) {
	f := serve(t)
	info, err := f.identity.GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	if err != nil || info.GetName() != Name || info.GetVendorVersion() != "test" {
		t.Errorf("info %v, %v", info, err)
	}

	caps, err := f.identity.GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
	if err != nil || len(caps.GetCapabilities()) != 5 {
		t.Errorf("capabilities %v, %v", caps, err)
	}

	node, err := f.node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || node.GetNodeId() != "a" ||
		node.GetAccessibleTopology().GetSegments()[TopologyKey] != "a" {
		t.Errorf("node %v, %v", node, err)
	}
}

func TestNodeNameMustFitALabel(t *testing.T) {
	for _, name := range []string{"", strings.Repeat("x", 64)} {
		if _, err := New(Config{NodeID: name}); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}
