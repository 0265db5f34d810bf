package keyfile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/keyfile"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

// The disk is full before each of the things that have to be made: two directories and a file, with a block.
func TestFullDiskIsNamedWhateverIsMissing(t *testing.T) {
	testenv.Root(t)
	for inodes := 1; inodes <= 4; inodes++ {
		disk := t.TempDir()
		options := fmt.Sprintf("size=8k,nr_inodes=%d", 1+inodes)
		must(t, unix.Mount("disk", disk, "tmpfs", 0, options))
		t.Cleanup(func() { must(t, unix.Unmount(disk, 0)) })
		filler := filepath.Join(disk, "filler")
		must(t, os.WriteFile(filler, make([]byte, 8<<10), 0o600))

		d := keyfile.In(disk, "image")
		if err := d.Make("vol-1"); !errors.Is(err, volume.ErrFull) {
			t.Errorf("%d inodes: %v", inodes, err)
		}
		must(t, os.Remove(filler), unix.Mount("disk", disk, "tmpfs", unix.MS_REMOUNT, "size=8k,nr_inodes=9"))
		must(t, d.Make("vol-1"), d.Check("vol-1"))
	}
}
