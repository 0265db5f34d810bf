package edit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T) (o *Originals, dir string) {
	t.Helper()
	o, err := Open(filepath.Join(t.TempDir(), "original"))
	if err != nil {
		t.Fatal(err)
	}
	return o, t.TempDir()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content is what is at a path: of a link where it leads, "" for nothing.
func content(t *testing.T, path string) string {
	t.Helper()
	if target, err := os.Readlink(path); err == nil {
		return "-> " + target
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

func TestWhatWasThereComesBack(t *testing.T) {
	o, dir := open(t)
	for name, put := range map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"file":    func(path string) error { return os.WriteFile(path, []byte("theirs"), 0o640) },
		"link":    func(path string) error { return os.Symlink("elsewhere", path) },
	} {
		path := filepath.Join(dir, name)
		must(t, put(path))
		before := content(t, path)

		// Two versions of ours, and a call that is repeated.
		for _, text := range []string{"ours", "ours", "ours, newer"} {
			must(t, o.Write(path, []byte(text), 0o644))
			if got := content(t, path); got != text {
				t.Errorf("%s: wrote %q, has %q", name, text, got)
			}
		}

		for range 2 {
			must(t, o.Restore(path))
		}
		if after := content(t, path); after != before {
			t.Errorf("%s: was %q, is %q", name, before, after)
		}
	}

	info, err := os.Stat(filepath.Join(dir, "file"))
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestWhatSomebodyElseHasChangedStays(t *testing.T) {
	o, dir := open(t)
	path := filepath.Join(dir, "crictl.yaml")
	must(t, os.WriteFile(path, []byte("before"), 0o644))
	must(t, o.Write(path, []byte("ours"), 0o644))
	must(t, os.WriteFile(path, []byte("the administrator's"), 0o644))
	must(t, o.Restore(path))
	if got := content(t, path); got != "the administrator's" {
		t.Errorf("is %q", got)
	}
}

func TestConfigurationThatIsThereIsLeftAlone(t *testing.T) {
	o, dir := open(t)
	path := filepath.Join(dir, "cri.toml")
	must(t, os.WriteFile(path, []byte("the administrator's"), 0o644))
	must(t, o.Create(path, []byte("ours"), 0o644))
	must(t, o.Restore(path))
	if got := content(t, path); got != "the administrator's" {
		t.Errorf("is %q", got)
	}
}

func TestConfigurationThatWasEditedSinceIsLeftAlone(t *testing.T) {
	o, dir := open(t)
	made, offered := filepath.Join(dir, "cri.toml"), filepath.Join(dir, "crictl.yaml")
	must(t, os.WriteFile(offered, []byte("before"), 0o644))
	must(t, o.Create(made, []byte("ours"), 0o644))
	must(t, o.Offer(offered, []byte("ours"), 0o644))
	must(t, o.Create(made, []byte("ours, newer"), 0o644))
	if got := content(t, made); got != "ours, newer" {
		t.Errorf("is %q", got)
	}

	for _, path := range []string{made, offered} {
		must(t, os.WriteFile(path, []byte("the administrator's"), 0o644))
	}
	must(t, o.Create(made, []byte("ours, newest"), 0o644))
	must(t, o.Offer(offered, []byte("ours, newest"), 0o644))
	for _, path := range []string{made, offered} {
		must(t, o.Restore(path))
		if got := content(t, path); got != "the administrator's" {
			t.Errorf("%s is %q", path, got)
		}
	}
}

// TestKilledWritersDoNotForgetWhatIsThere is of many that ended before they replaced the file.
func TestKilledWritersDoNotForgetWhatIsThere(t *testing.T) {
	o, dir := open(t)
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, []byte("theirs"), 0o644))
	must(t, o.Write(path, []byte("ours"), 0o644))
	for _, text := range []string{"a", "b", "c"} {
		must(t, o.remember(path, sumOf([]byte(text))))
	}
	must(t, o.Restore(path))
	if got := content(t, path); got != "theirs" {
		t.Errorf("is %q", got)
	}
}

func TestLinksComeAndGo(t *testing.T) {
	o, dir := open(t)
	path := filepath.Join(dir, "sbin", "ctr")
	for range 2 {
		must(t, o.Link(path, "/usr/local/bin/trivet-cri"))
	}
	if got := content(t, path); got != "-> /usr/local/bin/trivet-cri" {
		t.Errorf("is %q", got)
	}

	must(t, o.Restore(path))
	if got := content(t, path); got != "" {
		t.Errorf("is %q", got)
	}
}

// TestKillBetweenRecordAndFileGivesBackWhatIsThere is of a writer that ended before it replaced the file.
func TestKillBetweenRecordAndFileGivesBackWhatIsThere(t *testing.T) {
	o, dir := open(t)
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, []byte("theirs"), 0o644))
	must(t, o.remember(path, sumOf([]byte("ours"))))
	must(t, o.Restore(path))
	if got := content(t, path); got != "theirs" {
		t.Errorf("is %q", got)
	}

	// The same while an older one of ours is there.
	must(t, o.Write(path, []byte("ours"), 0o644))
	must(t, o.remember(path, sumOf([]byte("ours, newer"))))
	must(t, o.Restore(path))
	if got := content(t, path); got != "theirs" {
		t.Errorf("is %q", got)
	}
}

func TestDirectoriesAreRefused(t *testing.T) {
	o, dir := open(t)
	if err := o.Write(dir, []byte("ours"), 0o644); err == nil {
		t.Error("no error")
	}
}
