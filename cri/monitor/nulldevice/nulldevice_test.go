package nulldevice_test

import (
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/nulldevice"
)

// Root gets a device of its own, others the host's, whose mode they cannot change.
func TestADeviceTakesAllAndGivesNothing(t *testing.T) {
	fd, err := nulldevice.Open()
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "null")
	defer f.Close()
	if n, err := f.WriteString("lost"); n != 4 || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	if n, err := f.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes, %v; want the end", n, err)
	}

	var st, host unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Rdev != unix.Mkdev(1, 3) || st.Mode&0o777 != 0o666 {
		t.Errorf("device %#x, mode %o, %v; want 1:3 and 666", st.Rdev, st.Mode, err)
	}
	if err := unix.Stat(os.DevNull, &host); err != nil {
		t.Fatal(err)
	}
	if isHosts := st.Dev == host.Dev && st.Ino == host.Ino; isHosts && os.Geteuid() == 0 {
		t.Error("root got the host's device")
	}
}
