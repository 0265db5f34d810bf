package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/trivet-node/trivet/internal/testenv"
)

// Some layers cost the square of their size where each entry looks at all others. The limit is far above what
// work in proportion takes, and far below the square.
const costLimit = time.Minute

func within(t *testing.T, work func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), costLimit)
	defer cancel()
	if err := work(ctx); err != nil {
		t.Error(err)
	}
}

func TestReplacedLinksAmongManyDirectoriesCostInProportion(t *testing.T) {
	const n = 30_000
	var entries []entry
	for i := range n {
		entries = append(entries, dir(fmt.Sprint("d", i), 0o755))
	}

	for i := range n {
		name := fmt.Sprint("l", i)
		entries = append(entries, symlink(name, "d0"), file(name, ""))
	}

	root := filepath.Join(testenv.MemoryDir(t), "fs")
	data := archive(t, entries...)
	within(t, func(ctx context.Context) error {
		d := digest.FromBytes(data)
		_, err := Unpack(ctx, root, Source{Blob: bytes.NewReader(data), Digest: d, DiffID: d})
		return err
	})
}

func TestLinksBelowCostInProportion(t *testing.T) {
	const n = 8_000
	var low, high []entry
	for i := range n {
		low = append(low, dir(fmt.Sprint("d", i), 0o700), symlink(fmt.Sprint("l", i), fmt.Sprint("d", i)))
		name := fmt.Sprintf("l%d/x", i)
		high = append(high, file(name, ""), linked(tar.TypeLink, fmt.Sprint("h", i), name))
	}

	base := testenv.MemoryDir(t)
	lower, upper := filepath.Join(base, "lower"), filepath.Join(base, "upper")
	within(t, func(ctx context.Context) error {
		if _, err := unpackTo(t, lower, archive(t, low...)); err != nil {
			return err
		}

		result, err := unpackTo(t, upper, archive(t, high...))
		if err != nil {
			return err
		}

		return Complete(ctx, upper, []string{lower}, &result)
	})
}

// Thousands of hard links to one large file below are one copy of it.
func TestHardLinksToOneFileBelowAreOneCopy(t *testing.T) {
	base := t.TempDir()
	lower, upper := filepath.Join(base, "lower"), filepath.Join(base, "upper")
	const size = 1 << 20
	content := make([]byte, size)
	for i := range content {
		content[i] = 1
	}

	if _, err := unpackTo(t, lower, archive(t, file("big", string(content)))); err != nil {
		t.Fatal(err)
	}

	var links []entry
	for i := range 1000 {
		links = append(links, linked(tar.TypeLink, fmt.Sprint("h", i), "big"))
	}

	result, err := unpackTo(t, upper, archive(t, links...))
	if err != nil {
		t.Fatal(err)
	}
	if err := Complete(t.Context(), upper, []string{lower}, &result); err != nil {
		t.Fatal(err)
	}
	if result.Bytes > 2*size {
		t.Errorf("%d bytes were copied, want %d", result.Bytes, size)
	}
}

func TestUnpackEndsWithItsContext(t *testing.T) {
	var entries []entry
	for i := range 2000 {
		entries = append(entries, file(fmt.Sprint("f", i), ""))
	}

	tree, err := newTree(filepath.Join(t.TempDir(), "fs"))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()

	ctx, cancel := context.WithCancel(t.Context())
	data, reads := bytes.NewReader(archive(t, entries...)), 0
	err = tree.unpack(ctx, tar.NewReader(readerFunc(func(p []byte) (int, error) {
		if reads++; reads == 100 {
			cancel()
		}

		return data.Read(p)
	})))
	if !errors.Is(err, context.Canceled) || tree.result.Inodes > 100 {
		t.Errorf("error %v after %d files", err, tree.result.Inodes)
	}
}

func TestCompleteEndsWithItsContext(t *testing.T) {
	base := t.TempDir()
	data := archive(t, file("d/x", ""), linked(tar.TypeLink, "l", "nowhere"))
	result, err := unpackTo(t, filepath.Join(base, "upper"), data)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Complete(ctx, filepath.Join(base, "upper"), nil, &result); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want a cancellation", err)
	}
}
