package network

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// plugin is a CNI plugin that keeps one file per pod that it joined, and a copy of what it was told to
// collect.
const plugin = `#!/bin/sh
input=$(cat)
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.1.0"]}' ;;
ADD) : >JOINED/$CNI_CONTAINERID; echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.3/24"}]}' ;;
DEL) rm -f JOINED/$CNI_CONTAINERID ;;
GC) echo "$input" >COLLECTED ;;
esac
`

func TestCollectReleasesOnlyPodsThatAreGone(t *testing.T) {
	dir := t.TempDir()
	joined, collected, own := filepath.Join(
		dir,
		"joined",
	), filepath.Join(dir, "collected"), filepath.Join(dir, "sandboxes")

	for _, d := range []string{joined, own, filepath.Join(dir, "bin"), filepath.Join(dir, "net.d")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}

	write := func(path, text string, mode os.FileMode) string {
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}

		return path
	}

	write(
		filepath.Join(dir, "bin/test"),
		strings.NewReplacer("JOINED", joined, "COLLECTED", collected).Replace(plugin),
		0o755,
	)

	write(
		filepath.Join(dir, "net.d/10.conflist"),
		`{"cniVersion":"1.1.0","name":"test","plugins":[{"type":"test"}]}`,
		0o644,
	)

	n := New(Config{
		ConfDir:  filepath.Join(dir, "net.d"),
		BinDirs:  []string{filepath.Join(dir, "bin")},
		CacheDir: filepath.Join(dir, "cache"),
		Log:      slog.New(slog.DiscardHandler),
	})

	n.Reload(t.Context())
	for id, netns := range map[string]string{
		"live":           write(filepath.Join(own, "live"), "", 0o600),
		"half-removed":   write(filepath.Join(own, "half-removed"), "", 0o600),
		"rebooted":       filepath.Join(own, "rebooted"),
		"theirs":         write(filepath.Join(dir, "sandboxes-of-another"), "", 0o600),
		"theirs-removed": filepath.Join(dir, "gone"),
	} {
		if _, err := n.Setup(t.Context(), Attachment{ID: id, Netns: netns}); err != nil {
			t.Fatal(err)
		}
	}

	for range 2 {
		if err := n.Collect(t.Context(), func(id string) bool { return id == "live" }, own); err != nil {
			t.Fatal(err)
		}

		entries, err := os.ReadDir(joined)
		if err != nil {
			t.Fatal(err)
		}

		var left []string
		for _, e := range entries {
			left = append(left, e.Name())
		}

		if want := []string{"live", "theirs"}; !slices.Equal(left, want) {
			t.Errorf("joined are %v, want %v", left, want)
		}

		valid, err := os.ReadFile(collected)
		if err != nil || !strings.Contains(string(valid), `"containerID":"live"`) ||
			!strings.Contains(string(valid), `"containerID":"theirs"`) {
			t.Errorf("valid for the collection: %s, %v", valid, err)
		}
	}
}
