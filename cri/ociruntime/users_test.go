package ociruntime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runtimeThatSays is a runtime whose features and --version write these; "" is a command that it does not
// know.
func runtimeThatSays(t *testing.T, features, version string) Runtime {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	const script = `#!/bin/sh
say() { [ -n "$1" ] || exit 1; printf '%s' "$1"; }
case $1 in features) say 'FEATURES' ;; *) say 'VERSION' ;; esac
`
	text := strings.NewReplacer("FEATURES", features, "VERSION", version).Replace(script)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return Runtime{Program: path}
}

func TestVolumesAreMappedByRuntimesThatSaySo(t *testing.T) {
	const all = `{"ociVersionMin":"1.0.0","linux":{"namespaces":["user","pid"],` +
		`"mountExtensions":{"idmap":{"enabled":%s}}}}`
	for _, c := range []struct {
		name, features, version string

		// refusal is a part of the error; "" for none.
		refusal string
	}{
		{"runc 1.2", fmt.Sprintf(all, "true"), "", ""},
		{"one where it is switched off", fmt.Sprintf(all, "false"), "", "cannot map volumes"},
		{"runc 1.1", `{"linux":{"namespaces":["user"]}}`, "runc version 1.1.5", "cannot map volumes"},
		{"one without the namespace", `{"linux":{"namespaces":["pid"]}}`, "", "no user namespaces"},
		{"one that is not for Linux", `{}`, "", "no user namespaces"},
		{"one that says nothing that can be read", `{`, "", "features: unexpected end"},
		{"crun 1.8.1", "", "crun version 1.8.1", ""},
		{"crun 1.9", "", "crun version 1.9", ""},
		{"crun 1.14.3", "", "crun version 1.14.3-dirty", ""},
		{"crun of old", "", "crun version 1.8", "does not say"},
		{"crun of older", "", "crun version 0.19.1", "does not say"},
		{"another one", "", "other 9.9.9", "does not say"},
		{"one that fails", "", "", "exit status 1"},
	} {
		err := runtimeThatSays(t, c.features, c.version).MapsVolumes(t.Context())
		if (err == nil) != (c.refusal == "") || err != nil && !strings.Contains(err.Error(), c.refusal) {
			t.Errorf("%s: %v, want %q", c.name, err, c.refusal)
		}
	}
}

func TestWhatARuntimeSaysIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endless")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexec head -c 9000000 /dev/zero\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (Runtime{Program: path}).MapsVolumes(t.Context()); err == nil {
		t.Error("a runtime that writes without end is believed")
	}
}
