package firewall

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/ipam"
)

func recorded(t *testing.T) (p Pod) {
	t.Helper()
	old := recordsDir
	recordsDir = t.TempDir()
	t.Cleanup(func() { recordsDir = old })

	p = Pod{
		Network:   "n",
		Owner:     ipam.Owner{ContainerID: "abc", IfName: "eth0"},
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
	}
	if err := write(p); err != nil {
		t.Fatal(err)
	}

	return p
}

func hasFile(t *testing.T, name string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(recordsDir, name))
	return err == nil
}

// A writer was killed before it gave the file its name.
func TestAFileThatIsBeingWrittenIsNoRecord(t *testing.T) {
	p := recorded(t)
	left := ".tmp-" + filepath.Base(fileOf(p.Network, p.Owner)) + "-1"
	if err := os.Rename(fileOf(p.Network, p.Owner), filepath.Join(recordsDir, left)); err != nil {
		t.Fatal(err)
	}

	if all, err := records("n"); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}

	if err := (Config{}).Keep("another", nil); err != nil || hasFile(t, left) {
		t.Error(left, err)
	}
}

func TestARecordWithoutAddressesIsRemoved(t *testing.T) {
	p := recorded(t)
	p.Addresses = nil
	if err := write(p); err != nil {
		t.Fatal(err)
	}
	if err := (Config{}).Forbid(p); err != nil || hasFile(t, filepath.Base(fileOf(p.Network, p.Owner))) {
		t.Error(err)
	}
}

func TestRecordsAreLockedFromReadingToWriting(t *testing.T) {
	recorded(t)
	err := locked(func() error {
		dir, err := os.Open(recordsDir)
		if err != nil {
			return err
		}
		defer func() { _ = dir.Close() }()

		return unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	})
	if !errors.Is(err, unix.EWOULDBLOCK) {
		t.Error(err)
	}
}
