package csivolume_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// silence mounts a file system on a directory whose server does not answer, or is gone.
func silence(t *testing.T, dir string, gone bool) {
	t.Helper()
	server, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	must(t, err)
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", server.Fd())
	must(t, unix.Mount("test", dir, "fuse", 0, options))
	if gone {
		must(t, server.Close())
		return
	}

	// Who waits for an answer gets an error then.
	t.Cleanup(func() { server.Close() })
}

func TestAFileSystemWhoseServerDoesNotAnswerIsUnstaged(t *testing.T) {
	for _, gone := range []bool{true, false} {
		n := unattached(t)
		n.setUp(t, request("u1"))
		driver := filepath.Join(n.root, "plugins/kubernetes.io/csi/fake.csi")
		staged, err := filepath.Glob(filepath.Join(driver, "*/globalmount"))
		must(t, err)
		silence(t, staged[0], gone)

		n.tearDown(t, "u1")
		n.awaitUnstaged(t)
		wantCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")
	}
}

// The agent has no record of what kubelet has staged of a block volume, but for the one that its pods share.
func TestWhatKubeletHasStagedIsUnstagedWhoseServerDoesNotAnswer(t *testing.T) {
	for _, gone := range []bool{true, false} {
		n := unattached(t)
		n.setUp(t, blockRequest("u1"))
		csi := filepath.Join(n.root, "plugins/kubernetes.io/csi/volumeDevices")
		must(t, os.RemoveAll(filepath.Join(csi, "pv1/stage")))
		silence(t, filepath.Join(csi, "staging/pv1"), gone)

		n.tearDown(t, "u1")
		n.awaitUnstaged(t)
		wantCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")
	}
}
