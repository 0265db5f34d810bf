package blocking_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/blocking"
)

func TestFilesAreReadAndWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f, err := blocking.Open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(strings.Repeat("x", 5000))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}

	data, err := blocking.ReadFile(path)
	if err != nil || string(data) != strings.Repeat("x", 5000) {
		t.Errorf("%d bytes, %v", len(data), err)
	}

	if data, err := blocking.ReadFile("/proc/sys/kernel/ostype"); string(data) != "Linux\n" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
}

func TestFailuresAreThoseOfPackageOS(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := blocking.ReadFile(missing)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("%v", err)
	}

	if _, err := blocking.Open(t.TempDir(), os.O_WRONLY, 0); !errors.Is(err, unix.EISDIR) {
		t.Errorf("%v", err)
	}
}

func TestAFileIsClosedInChildren(t *testing.T) {
	f, err := blocking.Open(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}
