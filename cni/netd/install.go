package netd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/durable"
)

// Install copies the plugin to path, whole or not at all. One that is equal already stays. A plugin that runs
// at that moment keeps its file.
func Install(from, path string) error {
	if err := install(from, path); err != nil {
		return fmt.Errorf("install plugin %s: %w", path, err)
	}
	return nil
}

func install(from, path string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := durable.Sweep(path); err != nil {
		return err
	}
	if isInstalled(path, data) {
		return nil
	}

	return durable.WriteFile(path, data, 0o755)
}

// isInstalled reports whether path is an executable file with the content.
func isInstalled(path string, content []byte) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o111 == 0 {
		return false
	}
	now, err := os.ReadFile(path)
	return err == nil && bytes.Equal(now, content)
}
