package network

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// The type of a plugin is the name of a program in the plugins' directories, and not a path to any other one
// (CVE-2021-20206).
func TestTypeOfAPluginIsNoPath(t *testing.T) {
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	for _, d := range []string{"bin", "net.d"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	program := filepath.Join(dir, "other")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n: >"+ran+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}

	for _, kind := range []string{"../other", program, "./../other"} {
		list := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"test","plugins":[{"type":%q}]}`, kind)
		if err := os.WriteFile(filepath.Join(dir, "net.d/10.conflist"), []byte(list), 0o644); err != nil {
			t.Fatal(err)
		}

		n := New(Config{
			ConfDir:  filepath.Join(dir, "net.d"),
			BinDirs:  []string{filepath.Join(dir, "bin")},
			CacheDir: filepath.Join(dir, "cache"),
			Log:      slog.New(slog.DiscardHandler),
		})

		n.Reload(t.Context())
		pod := Attachment{ID: "pod", Netns: filepath.Join(dir, "netns")}
		if _, err := n.Setup(t.Context(), pod); err == nil {
			t.Errorf("type %q is accepted", kind)
		}
		if _, err := os.Stat(ran); err == nil {
			t.Fatalf("type %q ran a program", kind)
		}
	}
}
