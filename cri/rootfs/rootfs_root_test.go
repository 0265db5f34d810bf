package rootfs

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/internal/diskusage"
	"github.com/trivet-node/trivet/internal/testenv"
)

func config(t *testing.T) Config {
	t.Helper()
	dir := testenv.ShortDir(t)
	images, err := image.Open(image.Config{Dir: filepath.Join(dir, "images")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { images.Close() })
	return Config{Dir: filepath.Join(dir, "disk"), StateDir: filepath.Join(dir, "run"), Images: images}
}

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }

func TestNobodyElseComesToTheFilesOfContainers(t *testing.T) {
	testenv.Root(t)
	c := config(t)

	// As an older one made them.
	for _, dir := range []string{c.Dir, c.StateDir} {
		if err := errors.Join(os.Mkdir(dir, 0o711), os.Chmod(dir, 0o711)); err != nil {
			t.Fatal(err)
		}
	}

	if _, err := Open(c); err != nil {
		t.Fatal(err)
	}

	for _, dir := range []string{c.Dir, c.StateDir} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
}

func TestWhatCannotBeDeletedIsTriedAgainAtTheNextStart(t *testing.T) {
	testenv.Root(t)
	c := config(t)
	stuck := filepath.Join(c.Dir, "containers/stuck")
	orphan := filepath.Join(c.Dir, "containers/orphan")
	err := errors.Join(
		os.MkdirAll(stuck+"/upper", 0o700),
		os.MkdirAll(orphan, 0o700),
		unix.Mount("tmpfs", stuck+"/upper", "tmpfs", 0, ""),
	)
	if err != nil {
		t.Fatal(err)
	}

	// A mount keeps the one from being deleted, but not the other.
	if _, err := Open(c); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(orphan); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the other one: %v", err)
	}

	if err := unix.Unmount(stuck+"/upper", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(c); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(stuck); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the next start: %v", err)
	}
}

// nest makes depth directories within each other below dir.
func nest(t *testing.T, dir string, depth int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for i := 0; err == nil && i < depth; i++ {
		if err = unix.Mkdirat(fd, "d", 0o700); err != nil {
			break
		}

		next, openErr := unix.Openat(fd, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		fd, err = next, openErr
	}

	if err != nil {
		t.Fatal(err)
	}

	unix.Close(fd)
}

func TestReleaseDeletesVeryDeepTreesWithFewDescriptors(t *testing.T) {
	testenv.Root(t)
	c := config(t)
	m, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}

	_, err = m.Prepare(t.Context(), "deep", image.Image{}, nil)
	if err != nil {
		t.Fatal(err)
	}

	nest(t, filepath.Join(c.Dir, "containers/deep/upper"), 25_000)
	few := unix.Rlimit{Cur: 256}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}

	few.Max = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)

	trees := diskusage.New(slog.New(slog.DiscardHandler))
	defer trees.Close()

	u := trees.Measure(t.Context(), "deep", diskusage.Tree{Dirs: m.Dirs("deep"), Activity: diskusage.Ended})
	if u.Inodes < 1000 {
		t.Errorf("usage %+v", u)
	}
	if err := m.Release(t.Context(), "deep"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(c.Dir, "containers/deep")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the writable layer: %v", err)
	}
}
