package volume_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
)

func TestMountOptionsDecideTheBackendOrAreRefusedByName(t *testing.T) {
	n := newNode(t, 1<<30)
	for _, c := range []struct {
		backend, options string
		size             int64
		want             string // backend and file system, or a part of the refusal
	}{
		{"", "", 16 << 20, "btrfs btrfs"},
		{"", "_netdev,nofail,x-systemd.automount,noatime,nodev", 16 << 20, "btrfs btrfs"},
		{"", "discard", 16 << 20, "image ext4"},
		{"", "discard", 320 << 20, "image xfs"},
		{"", "data=journal", 320 << 20, "image ext4"},
		{"", "compress=zstd", 16 << 20, `"compress=zstd"`},
		{"", "discard,nonsense", 16 << 20, `"nonsense"`},
		{"", "source=/dev/sda", 16 << 20, `"source=/dev/sda"`},
		{"btrfs", "discard", 16 << 20, `"discard"`},
		{"image", "nonsense", 16 << 20, `"nonsense"`},
	} {
		t.Run(c.backend+" "+c.options, func(t *testing.T) {
			options := []string{c.options}
			v, err := n.Create(t.Context(), volume.Request{
				Name:     "v " + c.backend + c.options,
				Required: c.size,
				Backend:  c.backend,
				Access:   volume.Filesystem,
				Options:  options,
			})
			if err != nil {
				if !errors.Is(err, volume.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %s", err, c.want)
				}

				// Were it only told as no room, the claim would wait for it without a word.
				r := volume.Request{Backend: c.backend, Access: volume.Filesystem, Options: options}
				if free, err := n.Available(r); !errors.Is(err, volume.ErrInvalid) {
					t.Errorf("%d bytes are offered, %v; want the same refusal", free, err)
				}

				return
			}

			if got := v.Backend + " " + v.FSType; got != c.want {
				t.Errorf("volume of %s, want %s", got, c.want)
			}

			u := volume.Use{Access: volume.Filesystem, Options: options}
			if err := n.Stage(t.Context(), v.ID, n.stagePath(v.ID), u); err != nil {
				t.Error(err)
			}

			n.remove(v.ID)
		})
	}
}
