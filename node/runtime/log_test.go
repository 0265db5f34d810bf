package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func FuzzLogTail(f *testing.F) {
	f.Add([]byte("2026-01-01T00:00:00Z stdout F hello\n2026-01-01T00:00:00Z stderr P " +
		"wor\n2026-01-01T00:00:00Z stderr F ld\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := logTail(path); len(got) > maxLogBytes || strings.ToValidUTF8(got, "") != got {
			t.Errorf("%d bytes: %q", len(got), got)
		}
	})
}

func TestLogTailJoinsPartialLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	text := "2026-01-01T00:00:00Z stdout F hello\n2026-01-01T00:00:00Z stderr P wor\n2026-01-01T00:00:00Z " +
		"stderr F ld\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := logTail(path); got != "hello\nworld\n" {
		t.Errorf("%q", got)
	}
}
