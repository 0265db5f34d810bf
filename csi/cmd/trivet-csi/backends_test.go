package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
)

func TestBackendsArePreferred(t *testing.T) {
	for _, c := range []struct{ wanted, work, want string }{
		{"auto", "btrfs image quota", "btrfs image"},
		{"auto", "image quota", "image"},
		{"auto", "quota", "quota"},
		{"auto", "", ""},
		{"quota", "btrfs image quota", "quota image"},
		{"quota", "btrfs image", ""},
		{"image", "btrfs image", "image"},
	} {
		work := map[string]volume.Backend{}
		for name := range strings.FieldsSeq(c.work) {
			work[name] = struct{ volume.Backend }{}
		}
		if got := preferred(c.wanted, work); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%s of %s: %v", c.wanted, c.work, got)
		}
	}
}
