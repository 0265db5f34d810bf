package driver

import (
	"fmt"
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/trivet-node/trivet/csi/volume"
)

func TestCreateVolumeTranslatesTheRequest(t *testing.T) {
	f := serve(t)
	resp, err := f.controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name:               "name",
		CapacityRange:      &csi.CapacityRange{RequiredBytes: 10, LimitBytes: 20},
		VolumeCapabilities: []*csi.VolumeCapability{mountCapability("noatime")},
		Parameters:         map[string]string{"backend": "btrfs", "nocow": "false"},
		AccessibilityRequirements: &csi.TopologyRequirement{
			Requisite: []*csi.Topology{topology("b"), topology("a")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}

	r := f.volumes.request
	if r.Name != "name" || r.Required != 10 || r.Limit != 20 || r.Backend != "btrfs" || r.FSType != "xfs" ||
		r.Access != volume.Filesystem || *r.NoCOW || !slices.Equal(r.Options, []string{"noatime"}) {
		t.Errorf("request %+v", r)
	}

	v := resp.GetVolume()
	if v.GetVolumeId() != "vol-1" || v.GetCapacityBytes() != 10 ||
		v.GetVolumeContext()["backend"] != "btrfs" ||
		v.GetAccessibleTopology()[0].GetSegments()[TopologyKey] != "a" {
		t.Errorf("volume %v", v)
	}
}

func TestCreateVolumeRefusesWhatIsNotServed(t *testing.T) {
	f := serve(t)
	for _, c := range []struct {
		name   string
		change func(*csi.CreateVolumeRequest)
		want   codes.Code
	}{
		{"nothing", func(*csi.CreateVolumeRequest) {}, codes.OK},
		{"no name", func(r *csi.CreateVolumeRequest) { r.Name = "" }, codes.InvalidArgument},
		{
			"no capability",
			func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = nil },
			codes.InvalidArgument,
		},
		{"a source of no kind", func(r *csi.CreateVolumeRequest) {
			r.VolumeContentSource = &csi.VolumeContentSource{}
		}, codes.InvalidArgument},
		{"a snapshot", func(r *csi.CreateVolumeRequest) {
			r.VolumeContentSource = sourceToCSI("snap-1")
		}, codes.OK},
		{"another driver's snapshot", func(r *csi.CreateVolumeRequest) {
			r.VolumeContentSource = sourceToCSI("snap-../1")
		}, codes.NotFound},
		{"a snapshot that is a volume", func(r *csi.CreateVolumeRequest) {
			source := &csi.VolumeContentSource_SnapshotSource{SnapshotId: "vol-1"}
			r.VolumeContentSource = &csi.VolumeContentSource{
				Type: &csi.VolumeContentSource_Snapshot{Snapshot: source},
			}
		}, codes.NotFound},
		{"mutable parameters", func(r *csi.CreateVolumeRequest) {
			r.MutableParameters = map[string]string{"a": "b"}
		}, codes.InvalidArgument},
		{"a parameter", func(r *csi.CreateVolumeRequest) {
			r.Parameters = map[string]string{"a": "b"}
		}, codes.InvalidArgument},
		{"another node", func(r *csi.CreateVolumeRequest) {
			r.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: []*csi.Topology{topology("b")}}
		}, codes.ResourceExhausted},
	} {
		r := &csi.CreateVolumeRequest{
			Name:               "name",
			VolumeCapabilities: []*csi.VolumeCapability{mountCapability()},
		}

		c.change(r)
		_, err := f.controller.CreateVolume(t.Context(), r)
		checkCode(t, c.name, err, c.want)
	}

	f.volumes.err = fmt.Errorf("%w: 10 bytes are missing", volume.ErrFull)
	_, err := f.controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name:               "name",
		VolumeCapabilities: []*csi.VolumeCapability{mountCapability()},
	})

	checkCode(t, "a full disk", err, codes.ResourceExhausted)
}

// Who asks by topology, as external-provisioner does, has the claim scheduled again. Others have read nowhere
// that there is such a source.
func TestSourceThatThisNodeDoesNotHave(t *testing.T) {
	f := serve(t)
	f.volumes.err = fmt.Errorf("%w: snapshot snap-1", volume.ErrNotFound)
	here := &csi.TopologyRequirement{Requisite: []*csi.Topology{topology("a")}}
	for _, c := range []struct {
		where *csi.TopologyRequirement
		want  codes.Code
	}{
		{here, codes.ResourceExhausted},
		{nil, codes.NotFound},
	} {
		_, err := f.controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
			Name:                      "name",
			VolumeCapabilities:        []*csi.VolumeCapability{mountCapability()},
			VolumeContentSource:       sourceToCSI("snap-1"),
			AccessibilityRequirements: c.where,
		})
		checkCode(t, c.where.String(), err, c.want)
	}
}

// An ID that this driver cannot have given is not passed on.
func TestForeignIDsNameNoVolume(t *testing.T) {
	f := serve(t)
	_, err := f.controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "../x"})
	checkCode(t, "delete", err, codes.OK)
	if len(f.volumes.deleted) > 0 {
		t.Errorf("deleted %q", f.volumes.deleted)
	}

	_, err = f.node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId:         "../x",
		TargetPath:       "/target",
		VolumeCapability: mountCapability(),
	})

	checkCode(t, "publish", err, codes.NotFound)
	if len(f.publisher.calls) > 0 {
		t.Errorf("calls %q", f.publisher.calls)
	}
}

func TestListVolumesInPages(t *testing.T) {
	f := serve(t)
	var ids []string
	token := ""
	for range 2 {
		r := &csi.ListVolumesRequest{MaxEntries: 2, StartingToken: token}
		resp, err := f.controller.ListVolumes(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}

		for _, e := range resp.GetEntries() {
			ids = append(ids, e.GetVolume().GetVolumeId())
		}

		token = resp.GetNextToken()
	}

	if token != "" || !slices.Equal(ids, []string{"image", "plain", "raw"}) {
		t.Errorf("volumes %q, then token %q", ids, token)
	}

	_, err := f.controller.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: "foreign"})
	checkCode(t, "a foreign token", err, codes.Aborted)
	_, err = f.controller.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: -1})
	checkCode(t, "a negative number", err, codes.InvalidArgument)
}

// What volumes have in common is sent with each of them.
func TestListedVolumesAreWhole(t *testing.T) {
	f := serve(t)
	f.volumes.all = nil
	for _, s := range []volume.Spec{
		{ID: "v1", Size: 1, Backend: "btrfs"},
		{ID: "v2", Size: 2, Backend: "image"},
		{ID: "v3", Size: 3, Backend: "btrfs", Source: "snap-1"},
	} {
		f.volumes.all = append(f.volumes.all, volume.Volume{Spec: s})
	}

	resp, err := f.controller.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
	if err != nil || len(resp.GetEntries()) != len(f.volumes.all) {
		t.Fatalf("%v, %v", resp, err)
	}

	for i, v := range f.volumes.all {
		want := &csi.Volume{
			VolumeId:           v.ID,
			CapacityBytes:      v.Size,
			VolumeContext:      map[string]string{"backend": v.Backend},
			AccessibleTopology: []*csi.Topology{topology("a")},
			ContentSource:      sourceToCSI(v.Source),
		}
		got := resp.GetEntries()[i]
		if !proto.Equal(got.GetVolume(), want) || got.GetStatus() == nil {
			t.Errorf("listed %v, want %v", got, want)
		}
	}
}

// onePage has the volumes of a page and the first of the next.
type onePage struct {
	fakeVolumes
	all []volume.Volume
}

func (p *onePage) List(string, int) []volume.Volume { return p.all }

// BenchmarkListVolumes answers with a page of 100 volumes, encoded.
func BenchmarkListVolumes(b *testing.B) {
	p := &onePage{}
	for i := range 101 {
		spec := volume.Spec{ID: volume.ID(fmt.Sprint("volume-", i)), Backend: "btrfs"}
		p.all = append(p.all, volume.Volume{Spec: spec})
	}
	here := local{node: "a", reachable: []*csi.Topology{topologyOf("a")}, volumes: p}
	c := &controllerService{local: here}

	b.ReportAllocs()
	var encoded []byte
	for b.Loop() {
		resp, err := c.ListVolumes(b.Context(), &csi.ListVolumesRequest{MaxEntries: 100})
		if err == nil {
			encoded, err = proto.MarshalOptions{}.MarshalAppend(encoded[:0], resp)
		}
		if err != nil || len(resp.GetEntries()) != 100 {
			b.Fatalf("%d volumes: %v", len(resp.GetEntries()), err)
		}
	}
}

func TestCapacityIsThatOfThisNode(t *testing.T) {
	f := serve(t)
	for node, want := range map[string]int64{"a": 10 << 30, "b": 0} {
		r := &csi.GetCapacityRequest{AccessibleTopology: topology(node)}
		resp, err := f.controller.GetCapacity(t.Context(), r)
		if err != nil || resp.GetAvailableCapacity() != want {
			t.Errorf("node %s: %v, %v", node, resp, err)
		}
	}
}

func TestExpandVolume(t *testing.T) {
	f := serve(t)
	for id, nodeStep := range map[string]bool{"image": true, "plain": false} {
		resp, err := f.controller.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
			VolumeId:      id,
			CapacityRange: &csi.CapacityRange{RequiredBytes: 7, LimitBytes: 9},
		})
		if err != nil || resp.GetCapacityBytes() != 7 || resp.GetNodeExpansionRequired() != nodeStep ||
			f.volumes.grown != [2]int64{7, 9} {
			t.Errorf("%s: %v, %v; grown %v", id, resp, err, f.volumes.grown)
		}
	}

	_, err := f.controller.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{
		VolumeId:      "none",
		CapacityRange: &csi.CapacityRange{},
	})

	checkCode(t, "a volume that is not there", err, codes.NotFound)
	resp, err := f.node.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{
		VolumeId:   "image",
		VolumePath: "/target",
	})
	if err != nil || resp.GetCapacityBytes() != 5 {
		t.Errorf("on the node: %v, %v", resp, err)
	}
}

func TestValidateVolumeCapabilities(t *testing.T) {
	f := serve(t)
	ext4 := mountCapability()
	ext4.GetMount().FsType = "ext4"
	for _, c := range []struct {
		capability *csi.VolumeCapability
		confirmed  bool
	}{{mountCapability(), true}, {ext4, false}} {
		r := &csi.ValidateVolumeCapabilitiesRequest{
			VolumeId:           "plain",
			VolumeCapabilities: []*csi.VolumeCapability{c.capability},
		}
		resp, err := f.controller.ValidateVolumeCapabilities(t.Context(), r)
		if err != nil || (resp.GetConfirmed() != nil) != c.confirmed ||
			(resp.GetMessage() == "") != c.confirmed {
			t.Errorf("%v: %v, %v", c.capability, resp, err)
		}
	}
}

func TestModifyVolume(t *testing.T) {
	f := serve(t)
	cases := []struct {
		name       string
		id         string
		parameters map[string]string
		want       codes.Code
		limits     volume.Limits
	}{
		{"no volume", "", nil, codes.InvalidArgument, volume.Limits{}},
		{"a volume that is not there", "none", nil, codes.NotFound, volume.Limits{}},
		{"another driver's volume", "../x", nil, codes.NotFound, volume.Limits{}},
		{"unknown", "image", map[string]string{"iops": "100"}, codes.InvalidArgument, volume.Limits{}},
		{"some", "image", map[string]string{"readBytesPerSecond": "50Mi", "writeOperationsPerSecond": "1k"},
			codes.OK, volume.Limits{ReadBytes: 50 << 20, WriteOps: 1000}},
		{"others", "image", map[string]string{"writeBytesPerSecond": "1Mi", "readBytesPerSecond": "max"},
			codes.OK, volume.Limits{WriteBytes: 1 << 20}},
		{"none", "image", nil, codes.OK, volume.Limits{}},
	}

	for _, c := range cases {
		f.volumes.limits, f.publisher.calls = volume.Limits{}, nil
		_, err := f.controller.ControllerModifyVolume(t.Context(), &csi.ControllerModifyVolumeRequest{
			VolumeId:          c.id,
			MutableParameters: c.parameters,
		})
		checkCode(t, c.name, err, c.want)
		if f.volumes.limits != c.limits {
			t.Errorf("%s: limits %+v", c.name, f.volumes.limits)
		}

		enforced := slices.Equal(f.publisher.calls, []string{"limit image "})
		if enforced != (c.want == codes.OK) {
			t.Errorf("%s: calls %q", c.name, f.publisher.calls)
		}
	}
}

func TestLimitsAreRefusedWhereTheyCannotBeInForce(t *testing.T) {
	f := serve(t)
	f.publisher.unlimitable = true
	limits := map[string]string{"readBytesPerSecond": "50Mi"}
	_, err := f.controller.ControllerModifyVolume(t.Context(), &csi.ControllerModifyVolumeRequest{
		VolumeId:          "image",
		MutableParameters: limits,
	})
	checkCode(t, "modify", err, codes.InvalidArgument)
	_, err = f.controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name:               "name",
		VolumeCapabilities: []*csi.VolumeCapability{mountCapability()},
		MutableParameters:  limits,
	})
	checkCode(t, "create", err, codes.InvalidArgument)
}
