package driver

import (
	"errors"
	"fmt"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/csi/volume"
)

func TestListVolumeHealthHasWhatIsIll(t *testing.T) {
	f := serve(t)
	f.volumes.all[0].Damage = errors.New("lost")
	f.volumes.all[2].Trouble = errors.New("full")
	var ids []string
	var token string
	for range 2 {
		request := &csi.ControllerListVolumeHealthRequest{MaxEntries: 1, StartingToken: token}
		resp, err := f.controller.ControllerListVolumeHealth(t.Context(), request)
		if err != nil || len(resp.GetEntries()) != 1 {
			t.Fatal(resp, err)
		}

		ids, token = append(ids, resp.GetEntries()[0].GetVolumeId()), resp.GetNextToken()
	}

	if got := fmt.Sprint(ids, token); got != "[image raw]" {
		t.Errorf("%s, want those with damage or trouble", got)
	}
}

func TestStorageHealth(t *testing.T) {
	f := serve(t)
	f.volumes.trouble = map[string]error{
		"btrfs": fmt.Errorf("%w: read-only", volume.ErrUnavailable),
		"disk":  errors.New("almost full"),
		"image": nil,
	}

	resp, err := f.node.NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{})
	if err != nil || len(resp.GetBackendHealth()) != 2 {
		t.Fatal(resp, err)
	}

	for i, want := range []csi.StorageHealthErrorType{
		csi.StorageHealthErrorType_STORAGE_UNREACHABLE,
		csi.StorageHealthErrorType_STORAGE_DEGRADED,
	} {
		if got := resp.GetBackendHealth()[i]; got.GetStatus() != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

// kubelet asks by the ID that it has made up, and looks for that in the answer.
func TestHealthOfAnInlineVolumeIsThatOfThePodsID(t *testing.T) {
	f := serve(t)
	inline := volume.Volume{Damage: errors.New("lost")}
	inline.Name = inlineName("csi-1")
	inline.ID = volume.ID(inline.Name)
	f.volumes.all = append(f.volumes.all, inline)

	resp, err := f.node.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: "csi-1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetVolumeHealth(); got.GetVolumeId() != "csi-1" || len(got.GetHealthStatuses()) != 1 {
		t.Errorf("%v, want one status of csi-1", got)
	}

	_, err = f.node.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: "csi-2"})
	checkCode(t, "health of none", err, codes.NotFound)
}
