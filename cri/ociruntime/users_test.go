package ociruntime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runtimeThatSays is a runtime whose features are these; "" is a command that it does not know.
func runtimeThatSays(t *testing.T, features string) Runtime {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	const script = "#!/bin/sh\n[ $1 = features ] && [ -n 'SAYS' ] && printf '%s' 'SAYS'\n"
	text := strings.ReplaceAll(script, "SAYS", features)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return Runtime{Program: path}
}

func TestUserNamespacesAreThereUnlessTheRuntimeSaysOtherwise(t *testing.T) {
	for _, c := range []struct {
		name, features string

		// refusal is a part of the error; "" for none.
		refusal string
	}{
		{"one with all", `{"linux":{"namespaces":["user","pid"]}}`, ""},
		{"one without the command, as crun 1.8", "", ""},
		{"one without the namespace", `{"linux":{"namespaces":["pid"]}}`, "no user namespaces"},
		{"one that is not for Linux", `{}`, "no user namespaces"},
		{"one that says nothing that can be read", `{`, "features: unexpected end"},
	} {
		err := runtimeThatSays(t, c.features).CheckUsers(t.Context())
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
	if _, err := (Runtime{Program: path}).ask(t.Context(), "features"); err == nil {
		t.Error("a runtime that writes without end is believed")
	}
}
