package subpath_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/subpath"
)

// A container swaps a directory of its volume for a link while the path through it is looked up
// (CVE-2021-25741).
func TestLinkThatIsSwappedInMeanwhileLeadsNowhere(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	volume, secret := filepath.Join(dir, "vol"), filepath.Join(dir, "secret")
	target := filepath.Join(dir, "target")
	for _, d := range []string{"vol/a/sub", "secret/sub"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}

	must(t, os.WriteFile(filepath.Join(secret, "sub", "host"), nil, 0o600))
	must(t, os.Symlink(secret, filepath.Join(volume, "b")))

	end := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}

			a, b := filepath.Join(volume, "a"), filepath.Join(volume, "b")
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer swapping.Wait()
	defer close(end)

	bound, refused := 0, 0
	for bound+refused < 2000 || bound == 0 || refused == 0 {
		if err := subpath.Bind(volume, "a/sub", target, subpath.Options{}); err != nil {
			refused++
			continue
		}

		bound++
		_, err := os.Stat(filepath.Join(target, "host"))
		must(t, mount.Unmount(target))
		if err == nil {
			t.Fatal("the volume's path leads to the host's files")
		}
	}
}
