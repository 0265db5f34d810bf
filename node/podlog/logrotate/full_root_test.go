package logrotate

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/podlog/containerlog"
)

// noise is what cannot be compressed.
func noise(bytes int) string {
	out := make([]byte, bytes)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(out)
	return string(out)
}

// fullDisk returns the directory of a small disk.
func fullDisk(t *testing.T) string {
	t.Helper()
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=640k"); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})

	return dir
}

func TestAFullDiskCostsOnlyTheOldestFiles(t *testing.T) {
	dir := fullDisk(t)
	var said bytes.Buffer
	r, f := start(t, Config{
		MaxSize:  100 << 10,
		MaxFiles: 5,
		Log:      slog.New(slog.NewTextHandler(&said, nil)),
	}, "")

	// Four logs of 120 KiB, and something else that takes the rest.
	f.path = filepath.Join(dir, "0.log")
	for _, at := range []string{"1", "2", "3"} {
		write(t, f.path+".20260101-00000"+at, noise(120<<10))
	}
	write(t, f.path, noise(120<<10))
	rest := filepath.Join(dir, "rest")
	if err := os.WriteFile(rest, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}

	for range 3 {
		if err := r.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	files, err := containerlog.Rotated(f.path)
	if err != nil || len(files) != 4 || f.reopened != 1 {
		t.Fatalf("files %q, %v; rotated %d times", files, err, f.reopened)
	}
	for _, name := range files {
		if info, err := os.Stat(name); err != nil || info.Size() != 120<<10 {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
	if got := list(t, f.path); len(got) != 6 {
		t.Errorf("files %q", got)
	}
	if times := strings.Count(said.String(), `failed="compression of logs"`); times != 1 {
		t.Errorf("said %d times:\n%s", times, said.String())
	}

	// When there is room again, what was left is compressed.
	if err := errors.Join(os.Remove(rest), r.look(t.Context())); err != nil {
		t.Fatal(err)
	}
	if files, err = containerlog.Rotated(f.path); err != nil || !strings.HasSuffix(files[0], ".gz") {
		t.Errorf("files %q, %v", files, err)
	}
	if !strings.Contains(said.String(), `works="compression of logs"`) {
		t.Errorf("said:\n%s", said.String())
	}
}
