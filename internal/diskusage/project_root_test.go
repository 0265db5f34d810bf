package diskusage

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }

// newProject returns a directory with a project.
func newProject(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(testenv.ProjectQuotas(t, "ext4"), "project")
	must(t, os.Mkdir(dir, 0o700), projectquota.Assign(dir))
	return dir
}

func TestFigureOfAProjectIsTheKernelsAtOnce(t *testing.T) {
	dir := newProject(t)
	m := newMeter(t)
	tree := Tree{Dirs: []string{dir}, Activity: 1, Project: dir}
	if got := m.Measure(t.Context(), "a", tree); got.Usage != du(t, dir) {
		t.Errorf("%+v, want %+v", got, du(t, dir))
	}

	// It is too early for a count.
	must(t, write(dir+"/file", 1<<20))
	tree.Activity++
	got := m.Measure(t.Context(), "a", tree)
	if got.Usage != du(t, dir) || time.Since(got.Time) > time.Minute {
		t.Errorf("%+v, want %+v", got, du(t, dir))
	}
	if m.trees["a"].last.activity != 1 {
		t.Error("it was counted")
	}
}

func TestFilesThatWereTakenOutOfAProjectAreFound(t *testing.T) {
	dir := newProject(t)
	m := newMeter(t)
	tree := Tree{Dirs: []string{dir}, Activity: 1, Project: dir}
	m.Measure(t.Context(), "a", tree)

	// What its owner may do with it, unless he is in a user namespace.
	must(t, write(dir+"/hidden", 4<<20))
	out, err := exec.CommandContext(t.Context(), "chattr", "-p", "0", dir+"/hidden").CombinedOutput()
	if err != nil {
		t.Fatalf("chattr: %v: %s", err, out)
	}
	if used, err := projectquota.Of(dir); err != nil || used.Bytes >= 4<<20 {
		t.Fatalf("it is in the project still: %+v, %v", used, err)
	}

	tree.Activity++
	m.age("a", maxPause)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	for range retry.Every(ctx, 10*time.Millisecond) {
		if got := m.Measure(t.Context(), "a", tree); got.Usage == du(t, dir) {
			return
		}
	}

	t.Error("it is not found")
}
