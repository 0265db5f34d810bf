package mount

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOptionsGoToWhoUnderstandsThem(t *testing.T) {
	o := ParseOptions([]string{"ro,noatime", "nodev", "dev", "discard", "commit=60", "", "defaults"})
	if !o.ReadOnly || o.set != unix.MOUNT_ATTR_NOATIME ||
		!slices.Equal(o.FS, []string{"discard", "commit=60"}) {
		t.Errorf("options %+v", o)
	}
}

func TestOptionsForMount8AloneAreDropped(t *testing.T) {
	o := ParseOptions([]string{"_netdev,noauto,nofail,user", "x-systemd.requires=a", "comment=b", "nouuid"})
	if !slices.Equal(o.FS, []string{"nouuid"}) {
		t.Errorf("options %+v", o)
	}
}

func FuzzOptions(f *testing.F) {
	f.Add("ro,noatime,x=y")
	f.Fuzz(func(t *testing.T, list string) {
		for _, opt := range ParseOptions([]string{list}).FS {
			if opt == "" || strings.Contains(opt, ",") {
				t.Errorf("option %q of %q", opt, list)
			}
		}
	})
}
