package driver

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// A sidecar that does what a controller of the process does is named, once; what it does alone is not.
func TestOthersWhoCallWhatControllersCallAreNamed(t *testing.T) {
	f := serveConfig(t, func(c *Config) {
		c.Own = []string{
			csi.Controller_CreateVolume_FullMethodName,
			csi.Controller_ControllerExpandVolume_FullMethodName,
		}
	})
	called := func() string {
		t.Helper()
		info, err := f.identity.GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return info.GetManifest()[CalledByOthers]
	}

	_, err := f.controller.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "plain"})
	checkCode(t, "delete", err, codes.OK)
	if got := called(); got != "" {
		t.Errorf("nobody else has called %q", got)
	}

	for range 2 {
		_, err := f.controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{})
		checkCode(t, "create", err, codes.InvalidArgument)
	}
	if got := called(); got != "CreateVolume" {
		t.Errorf("called by others: %q", got)
	}
}
