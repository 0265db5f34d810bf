package launch

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/release/installer/swap"
)

// units records what is asked of systemd.
type units struct{ calls []string }

func (u *units) do(call string) error {
	u.calls = append(u.calls, call)
	return nil
}

func (u *units) StartSoon(_ context.Context, unit string) error      { return u.do("start " + unit) }
func (u *units) Stop(_ context.Context, unit string) error           { return u.do("stop " + unit) }
func (u *units) Enable(_ context.Context, unit string) error         { return u.do("enable " + unit) }
func (u *units) Disable(_ context.Context, unit string) error        { return u.do("disable " + unit) }
func (u *units) Reload(context.Context) error                        { return u.do("reload") }
func (u *units) Active(_ context.Context, unit string) (bool, error) { return false, nil }

// newMachine has a root of its own, and an image with two files.
func newMachine(t *testing.T) (Machine, *units) {
	t.Helper()
	image := t.TempDir()
	for _, name := range []string{"trivet-node", "trivet-node.service", "trivet-installer"} {
		if err := os.WriteFile(filepath.Join(image, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	u := &units{}
	m := Machine{
		Part:    "node",
		Units:   u,
		Root:    t.TempDir(),
		Folder:  "/var/lib/trivet/installer/node",
		Program: filepath.Join(image, "trivet-installer"),
		Version: "v1",
		Files: []File{
			{Path: filepath.Join(image, "trivet-node"), Mode: 0o755},
			{Path: filepath.Join(image, "trivet-node.service"), Mode: 0o644},
		},
	}
	if err := os.MkdirAll(filepath.Dir(m.servicePath()), 0o755); err != nil {
		t.Fatal(err)
	}
	return m, u
}

func TestServiceRunsTheStagedProgramAndGoes(t *testing.T) {
	m, u := newMachine(t)
	state, err := m.Stage()
	if err != nil {
		t.Fatal(err)
	}
	program := m.Folder.Path("payload", string(state), "trivet-installer")
	if info, err := os.Stat(m.Root + program); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("program %v, %v", info, err)
	}

	if err := m.Launch(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(m.servicePath())
	if err != nil || !strings.Contains(string(text), "ExecStart="+program+" exchange --part=node") {
		t.Errorf("unit %v\n%s", err, text)
	}

	for range 2 {
		if err := m.Retire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	const want = "enable trivet-installer-node.service, start trivet-installer-node.service, " +
		"disable trivet-installer-node.service, reload"
	if got := strings.Join(u.calls, ", "); got != want {
		t.Errorf("calls %s", got)
	}
	if _, err := os.Stat(m.servicePath()); err == nil {
		t.Error("the unit is left")
	}
}

func TestStateIsAnotherOneForOtherFiles(t *testing.T) {
	m, _ := newMachine(t)
	first, err := m.State()
	if err != nil || !strings.HasPrefix(string(first), "v1-") {
		t.Fatalf("state %q, %v", first, err)
	}

	// The installer itself is not of the part.
	if err := os.WriteFile(m.Program, []byte("newer"), 0o755); err != nil {
		t.Fatal(err)
	}
	if again, err := m.State(); err != nil || again != first {
		t.Errorf("state %q, then %q, %v", first, again, err)
	}
	if err := os.WriteFile(m.Files[0].Path, []byte("newer"), 0o755); err != nil {
		t.Fatal(err)
	}
	if other, err := m.State(); err != nil || other == first {
		t.Errorf("state %q, then %q, %v", first, other, err)
	}
}

func TestSweepKeepsWhatIsNamed(t *testing.T) {
	m, _ := newMachine(t)
	state, err := m.Stage()
	if err != nil {
		t.Fatal(err)
	}
	old := m.Root + m.Folder.Path("payload", "v0-old")
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}

	if err := m.Sweep(state); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("the old files are left")
	}
	if _, err := os.Stat(m.Root + m.Folder.Path("payload", string(state))); err != nil {
		t.Error(err)
	}

	if err := m.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.Root + "/var/lib/trivet"); err == nil {
		t.Error("the folder is left")
	}
	if err := m.Sweep(swap.State("v1")); err != nil {
		t.Error(err)
	}
}
