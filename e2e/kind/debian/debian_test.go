package debian

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMirrorIsThatOfTheSuiteElseOneOfDebian(t *testing.T) {
	const targets = `
Debian bookworm main http://one/debian/
Debian bookworm-updates main http://two/debian/
Debian bookworm-security main http://three/debian-security/
Debian trixie main http://four/debian/
Other bookworm main http://five/
`
	for suite, want := range map[string]string{
		"bookworm": "http://one/debian/",
		"trixie":   "http://four/debian/",
		"sid":      "http://four/debian/",
	} {
		if got := mirrorOf(targets, suite); got != want {
			t.Errorf("%s: mirror %q, want %q", suite, got, want)
		}
	}
}

func TestWithoutDebianThereIsNoMirror(t *testing.T) {
	if got := mirrorOf("Ubuntu noble main http://one/\n\nDebian\n", "bookworm"); got != "" {
		t.Errorf("mirror %q", got)
	}
}

// fake puts a shell script in a program's place.
func fake(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestDownloadThatFailsIsTriedAgainWithNewLists(t *testing.T) {
	dir := t.TempDir()
	fake(t, "apt-get", `echo "$*" >>`+dir+`/calls; echo "E: no such version"; exit 100`)
	err := Unpack(t.Context(), filepath.Join(dir, "tools"), []string{"a", "b"})
	if err == nil || !strings.Contains(err.Error(), "E: no such version") {
		t.Errorf("error %v", err)
	}

	calls, _ := os.ReadFile(filepath.Join(dir, "calls"))
	if want := "-q download a b\n-q update\n"; string(calls) != want {
		t.Errorf("calls:\n%s", calls)
	}

	left, _ := filepath.Glob(filepath.Join(dir, "tools*"))
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWhatIsUnpackedIsNotFetchedAgain(t *testing.T) {
	fake(t, "apt-get", "exit 1")
	if err := Unpack(t.Context(), t.TempDir(), []string{"a"}); err != nil {
		t.Error(err)
	}
}

func TestRootThatIsThereIsNotMadeAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "root.tar")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (Root{Suite: "none"}).Write(t.Context(), file); err != nil {
		t.Error(err)
	}
}

func TestFailedBootstrapSaysWhyAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	tools := filepath.Join(dir, "tools")
	if err := os.Mkdir(tools, 0o755); err != nil {
		t.Fatal(err)
	}

	fake(t, "unshare", `mkdir -p `+dir+`/root.tar.root/etc; echo "E: Failed getting release file"; exit 1`)
	file := filepath.Join(dir, "root.tar")
	var out strings.Builder
	err := Root{
		Suite:    "bookworm",
		Mirror:   "http://none/",
		Tools:    tools,
		Archives: filepath.Join(dir, "archives"),
		Out:      &out,
	}.Write(t.Context(), file)

	if err == nil || !strings.Contains(err.Error(), "Failed getting release file") {
		t.Errorf("error %v", err)
	}

	left, _ := filepath.Glob(file + "*")
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("root: %v", err)
	}
}
