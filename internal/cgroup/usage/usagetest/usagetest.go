// Package usagetest gives tests control groups without a kernel: the files of a group of each version of
// cgroups. Those of v1 and the pressure are recorded on Linux 6.18, with made-up devices and huge pages; the
// others of v2 have the form that cgroup-v2.rst describes.
package usagetest

import (
	"embed"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/internal/cgroup/usage"
)

//go:embed testdata
var recorded embed.FS

// Host is a machine on which all groups show the same. It may be used by many goroutines once it is set up.
type Host struct {
	v2  bool
	dir string

	// Gone are groups that do not exist, Broken those that cannot be read.
	Gone, Broken map[string]bool
}

// New returns a Host with cgroup v2 or v1, whose files are removed when the test ends.
func New(tb testing.TB, v2 bool) *Host {
	tb.Helper()
	version := "v1"
	if v2 {
		version = "v2"
	}

	files, err := fs.Sub(recorded, "testdata/"+version)
	if err != nil {
		tb.Fatal(err)
	}

	dir := filepath.Join(tb.TempDir(), version)
	if err := os.CopyFS(dir, files); err != nil {
		tb.Fatal(err)
	}

	return &Host{
		v2:     v2,
		dir:    dir,
		Gone:   map[string]bool{},
		Broken: map[string]bool{},
	}
}

// Reader returns a reader of a group.
func (h *Host) Reader(group string, keep bool) *usage.Reader {
	return usage.NewReader(usage.Group{
		Name:      group,
		V2:        h.v2,
		Dir:       func(controller string) string { return h.of(group, controller) },
		PageSizes: []string{"2MB"},
	}, keep)
}

// of returns the directory of a group.
func (h *Host) of(group, controller string) string {
	switch {
	case h.Gone[group]:
		return filepath.Join(h.dir, "gone")
	case h.Broken[group]:
		// A file is not a directory.
		return filepath.Join(h.dir, "cgroup.procs")
	case h.v2:
		return h.dir
	}
	return filepath.Join(h.dir, controller)
}

// Write replaces the content of a file of all groups: its path below the version's directory of testdata.
func (h *Host) Write(tb testing.TB, file, text string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, file), []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}
