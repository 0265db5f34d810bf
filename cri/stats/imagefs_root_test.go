package stats_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

// device returns the file system that a directory is on.
func device(t *testing.T, dir string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Dev
}

func TestImagesAndLayersAreSeenOnTheirFileSystems(t *testing.T) {
	n := nodetest.New(t)
	layers := n.Dir + "/lib/rootfs"
	for _, split := range []bool{false, true} {
		if split {
			n.RemoveAll(t.Context())
			n.Kill()
			mountMemory(t, layers)
			n.Start()
		}

		n.Pull()
		pod := n.Sandbox("writer", nil)
		n.Run(pod, "writer", []string{"sh", "-c", "head -c 3000000 /dev/zero >/file; exec sleep 1000"}, nil)

		var images, written *runtimeapi.FilesystemUsage
		nodetest.Eventually(t, func() bool {
			info, err := n.Images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{})
			if err != nil || len(info.ImageFilesystems) != 1 || len(info.ContainerFilesystems) != 1 {
				t.Fatalf("%v, %v", info, err)
			}

			images, written = info.ImageFilesystems[0], info.ContainerFilesystems[0]
			return written.UsedBytes.Value >= 3_000_000
		})

		image := device(t, images.FsId.Mountpoint)
		if got := device(t, written.FsId.Mountpoint); (got != image) != split || got != device(t, layers) {
			t.Errorf("split %v: images in %v, layers in %v", split, images.FsId, written.FsId)
		}
		if images.UsedBytes.Value == 0 || images.InodesUsed.Value == 0 || written.UsedBytes.Value > 4<<20 {
			t.Errorf("split %v: images %v, layers %v", split, images, written)
		}
	}
}

// mountMemory mounts a file system of its own on a directory until the test ends.
func mountMemory(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
