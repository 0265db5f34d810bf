package fscrypt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKernelWithoutEncryptionSaysWhatItLacks(t *testing.T) {
	ext4 := filepath.Join(t.TempDir(), "ext4")
	for _, step := range []struct{ made, refused string }{
		{"", "modprobe ext4"},
		{"features", "CONFIG_FS_ENCRYPTION"},
		{"features/encryption", ""},
	} {
		if step.made != "" {
			if err := os.MkdirAll(filepath.Join(ext4, step.made), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		err := supported(ext4)
		refused := err != nil && strings.Contains(err.Error(), step.refused)
		if refused != (step.refused != "") || err != nil && !refused {
			t.Errorf("with %q: %v, want %q", step.made, err, step.refused)
		}
	}
}
