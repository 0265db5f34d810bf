package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/mount"
	"github.com/trivet-node/trivet/csi/volume"
)

func TestPathsFromOutsideStayInside(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{Name: "v", Required: 16 << 20})
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.Mkdir(victim, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(victim), filepath.Join(n.dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(n.dir, "last")); err != nil {
		t.Fatal(err)
	}

	fs := volume.Use{Access: volume.Filesystem}
	n.publish(v, "pod")
	for _, path := range []string{
		victim, n.dir, n.dir + "/link/victim", n.dir + "/last", n.dir + "/../x", n.dir + "/a/../../x",
		"relative", "", "/", n.dir + "/a\x00b",
	} {
		if err := n.Publish(t.Context(), v.ID, path, fs); !errors.Is(err, mount.ErrOutside) {
			t.Errorf("publish on %q: %v", path, err)
		}
		if err := n.Unpublish(t.Context(), v.ID, path); !errors.Is(err, mount.ErrOutside) {
			t.Errorf("unpublish from %q: %v", path, err)
		}
	}

	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}

	for _, id := range []string{"", "..", "../../etc", "a/b", "A", "a\x00", "-a"} {
		if err := n.Delete(t.Context(), id); !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("delete %q: %v", id, err)
		}
	}

	for _, left := range n.List("", 0) {
		n.remove(left.ID, "pod")
	}
}
