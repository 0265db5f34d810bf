package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/internal/testenv"
)

func config(t *testing.T) Config {
	dir := testenv.ShortDir(t)
	images, err := image.Open(image.Config{Dir: filepath.Join(dir, "images")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { images.Close() })
	return Config{Dir: filepath.Join(dir, "disk"), StateDir: filepath.Join(dir, "run"), Images: images}
}

func TestUsageOfADirectoryOfManyPagesCountsEachNameOnce(t *testing.T) {
	c := config(t)
	m, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}

	upper := filepath.Join(c.Dir, "containers/c/upper")
	if err := os.MkdirAll(upper, 0o700); err != nil {
		t.Fatal(err)
	}

	for i := range 3000 {
		if err := os.Mkdir(fmt.Sprintf("%s/%d%s", upper, i, strings.Repeat("n", i%200)), 0o700); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.Symlink("/", upper+"/root"); err != nil {
		t.Fatal(err)
	}
	if u, err := m.Usage("c"); err != nil || u.Inodes != 3002 {
		t.Errorf("%d inodes, %v; want 3002", u.Inodes, err)
	}
}

func TestUsageCountsWhatCanBeSeen(t *testing.T) {
	c := config(t)
	m, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := m.Usage("absent"); err != nil || u != (Usage{}) {
		t.Errorf("of one that is not there: %v, %v", u, err)
	}

	upper := filepath.Join(c.Dir, "containers/c/upper")
	err = errors.Join(
		os.MkdirAll(upper, 0o700),
		os.WriteFile(upper+"/a", make([]byte, 8192), 0o600),
		os.Link(upper+"/a", upper+"/b"),
	)

	dir, openErr := os.OpenRoot(upper)
	for err = errors.Join(err, openErr); err == nil; {
		defer dir.Close()

		name := strings.Repeat("n", 250)
		if err = dir.Mkdir(name, 0o700); err == nil {
			dir, err = dir.OpenRoot(name)
		}
		if err == nil && len(dir.Name()) > 2*unix.PathMax {
			break
		}
	}

	if err != nil {
		t.Fatal(err)
	}

	for name, count := range map[string]func() (Usage, error){
		"container": func() (Usage, error) { return m.Usage("c") },
		"all":       m.TotalUsage,
	} {
		if u, err := count(); err != nil || u.Bytes < 8192 || u.Bytes >= 2<<20 || u.Inodes < 15 {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
}
