package apparmor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fake is a kernel's file of profiles and a parser that enters in it what it reads, as the real one makes
// the kernel do.
func fake(t *testing.T, profiles, parser string) *Profiles {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "parser")
	script := "#!/bin/sh\necho \"$*\" >> DIR/calls\n" + parser + "\n"
	script = strings.ReplaceAll(script, "DIR", dir)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "profiles"), []byte(profiles), 0o644); err != nil {
		t.Fatal(err)
	}

	return New(dir, program)
}

const loads = `sed -n 's/^profile \([^ ]*\) .*/\1 (enforce)/p' >> DIR/profiles`

func TestDefaultProfileIsLoadedOnce(t *testing.T) {
	p := fake(t, "other (enforce)\n", loads)
	for range 2 {
		if name, err := p.Default(t.Context()); err != nil || name != DefaultProfile {
			t.Fatalf("profile %q, %v", name, err)
		}
	}
	calls, err := os.ReadFile(filepath.Join(p.dir, "calls"))
	if err != nil || strings.Count(string(calls), "\n") != 1 {
		t.Errorf("calls of the parser: %s, %v", calls, err)
	}
}

func TestDefaultProfileThatCannotBeLoadedIsAnError(t *testing.T) {
	for _, c := range []struct {
		name, parser, says string
	}{
		{"the parser fails", "echo 'no rights' >&2; exit 1", "no rights"},
		{"the parser loads nothing", "exit 0", "kernel has none"},
	} {
		_, err := fake(t, "", c.parser).Default(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v does not say %q", c.name, err, c.says)
		}
	}

	_, err := New(fake(t, "", "").dir, "no-such-parser").Default(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no-such-parser") {
		t.Errorf("error %v does not name the parser that is not there", err)
	}

	_, err = New(t.TempDir(), "no-such-parser").Default(t.Context())
	if err == nil || !strings.Contains(err.Error(), "securityfs") {
		t.Errorf("error %v does not say that securityfs is missing", err)
	}
}

func TestProfilesAreFoundByTheirWholeName(t *testing.T) {
	p := fake(t, "web (enforce)\nmy (odd) name (complain)\n", "")
	for name, want := range map[string]bool{
		"web":           true,
		"my (odd) name": true,
		"we":            false,
		"web (enforce)": false,
		"":              false,
	} {
		if got, err := p.Loaded(name); err != nil || got != want {
			t.Errorf("%q: %t, %v", name, got, err)
		}
	}
}
