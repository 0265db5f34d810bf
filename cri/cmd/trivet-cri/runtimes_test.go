package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRuncIsTakenWhereCrunIsNotThere(t *testing.T) {
	for _, c := range []struct {
		there []string
		want  string
	}{{[]string{"crun", "runc"}, "crun"}, {[]string{"runc"}, "runc"}, {nil, "crun"}} {
		dir := t.TempDir()
		for _, p := range c.there {
			if err := os.WriteFile(filepath.Join(dir, p), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}

		t.Setenv("PATH", dir)
		if got := defaultRuntime(); got != c.want {
			t.Errorf("with %q: %s, want %s", c.there, got, c.want)
		}
	}
}
