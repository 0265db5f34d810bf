package logjournal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
)

// fill takes all that is free where path is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(bytes.Repeat([]byte("x"), 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

func TestOutputFlowsWhereTheJournalsFileSystemIsFull(t *testing.T) {
	testenv.Root(t)
	dir := testenv.ShortDir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})

	g := newRig(t)
	journal, err := Open(filepath.Join(dir, "journal"), 2)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { journal.Close() })
	journal.Recover(nil)
	g.journal = journal
	fill(t, filepath.Join(dir, "rest"))

	// As much as a slot takes, for each of them.
	text := strings.Repeat("0123456789abcde\n", batch/16)
	for range 2 {
		g.write(t, text)
		g.drain(t)
	}
	if got := g.drain(t); got != strings.Repeat("F 0123456789abcde\n", 2*batch/16) {
		t.Errorf("the log has %d bytes", len(got))
	}
}
