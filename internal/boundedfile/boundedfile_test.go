package boundedfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

func TestReadReturnsWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("four"), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := boundedfile.Read(path, 4)
	if err != nil || string(data) != "four" {
		t.Fatalf("Read = %q, %v; want the whole file", data, err)
	}
}

func TestReadRefusesMoreThanLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := boundedfile.Read(path, 1<<10); !errors.Is(err, boundedfile.ErrTooLarge) {
		t.Fatalf("Read of a sparse terabyte: %v, want ErrTooLarge", err)
	}
}

// A FIFO without a writer would block, the link leads to a file that is not meant.
func TestReadRefusesAllButRegularFiles(t *testing.T) {
	dir := t.TempDir()
	fifo, link, secret := filepath.Join(dir, "fifo"), filepath.Join(dir, "link"), filepath.Join(dir, "secret")
	err := errors.Join(
		unix.Mkfifo(fifo, 0o600),
		os.WriteFile(secret, []byte("x"), 0o600),
		os.Symlink(secret, link),
	)
	if err != nil {
		t.Fatal(err)
	}

	for _, path := range []string{fifo, link, dir, "/dev/zero"} {
		if _, err := boundedfile.Read(path, 10); !errors.Is(err, boundedfile.ErrNotRegular) {
			t.Errorf("Read(%s): %v, want ErrNotRegular", path, err)
		}
	}
}

// open(2) of a file with a write lease waits until the holder answers or fs.lease-break-time is over.
func TestOpenDoesNotWaitForLease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leased")
	holder, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()

	if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETSIG, int(unix.SIGURG)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatalf("set a lease: %v", err)
	}
	if _, err := boundedfile.Open(path, os.O_RDONLY); !errors.Is(err, unix.EAGAIN) {
		t.Fatalf("Open of a leased file: %v, want EAGAIN at once", err)
	}
}

func TestOpenBelowStaysInDirectory(t *testing.T) {
	dir := t.TempDir()
	volume := filepath.Join(dir, "volume")
	err := errors.Join(
		os.Mkdir(volume, 0o700),
		os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600),
		os.WriteFile(filepath.Join(volume, "own"), []byte("own"), 0o600),
		os.Symlink("own", filepath.Join(volume, "inside")),
		os.Symlink("../secret", filepath.Join(volume, "outside")),
		unix.Mkfifo(filepath.Join(volume, "fifo"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}

	for _, path := range []string{"outside", "../secret", "fifo", "none", "."} {
		if f, err := boundedfile.OpenBelow(volume, path, os.O_RDONLY); err == nil {
			f.Close()
			t.Errorf("OpenBelow(%s) succeeded", path)
		}
	}

	f, err := boundedfile.OpenBelow(volume, "inside", os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	if data, err := boundedfile.Contents(f, 3); err != nil || string(data) != "own" {
		t.Errorf("Contents = %q, %v", data, err)
	}
}

func TestTailIsTheEndOfAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int64]string{0: "", 3: "789", 10: "0123456789", 99: "0123456789"} {
		if got, err := boundedfile.Tail(path, size); string(got) != want || err != nil {
			t.Errorf("%d bytes: %q, %v; want %q", size, got, err, want)
		}
	}

	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, refused := range []string{link, dir, filepath.Join(dir, "none")} {
		if got, err := boundedfile.Tail(refused, 5); err == nil {
			t.Errorf("%s: read %q", refused, got)
		}
	}
}
