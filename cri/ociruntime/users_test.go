package ociruntime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runtimeThatSays is a runtime with these features and this version; "" is a command that it does not know.
func runtimeThatSays(t *testing.T, features, version string) Runtime {
	t.Helper()
	const script = `case $1 in
features) [ -n 'FEATURES' ] && printf '%s' 'FEATURES' ;;
--version) [ -n 'VERSION' ] && printf '%s' 'VERSION' ;;
esac`
	return runtimeOf(t, strings.NewReplacer("FEATURES", features, "VERSION", version).Replace(script))
}

// runtimeOf is a runtime that is a shell script.
func runtimeOf(t *testing.T, script string) Runtime {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return Runtime{Program: path}
}

func TestUserNamespacesAreThereIfTheRuntimeIsKnownToHaveThem(t *testing.T) {
	for _, c := range []struct {
		name, features, version string

		// refusal is a part of the error; "" for none.
		refusal string
	}{
		{"one with all", `{"linux":{"namespaces":["user","pid"]}}`, "", ""},
		{"one without the namespace", `{"linux":{"namespaces":["pid"]}}`, "runc version 9.0", "no user"},
		{"one that is not for Linux", `{}`, "", "no user namespaces"},
		{"one that says nothing that can be read", `{`, "crun version 9.0", "features: unexpected end"},
		{"crun of Debian 12", "", "crun version 1.8.1\ncommit: f8a0", ""},
		{"runc of Debian 12", "", "runc version 1.1.5+ds1\n", ""},
		{"a later one", "", "crun version 1.14\n", ""},
		{"an older crun", "", "crun version 1.8\n", "older than 1.8.1"},
		{"an older runc", "", "runc version 1.0.3\n", "older than 1.1.5"},
		{"another one", "", "runsc version release-20260101.0\n", "not a runtime that is known"},
		{"one that names another", "", "like runc version 1.2.0\n", "not a runtime that is known"},
		{"one that says nothing", "", "", "--version: exit status 1"},
	} {
		err := runtimeThatSays(t, c.features, c.version).CheckUsers(t.Context())
		if (err == nil) != (c.refusal == "") || err != nil && !strings.Contains(err.Error(), c.refusal) {
			t.Errorf("%s: %v, want %q", c.name, err, c.refusal)
		}
	}
}

func TestRuntimeThatDoesNotAnswerIsRefused(t *testing.T) {
	for name, script := range map[string]string{
		"its features": "if [ $1 = features ]; then sleep 1000; exit 1; fi; echo crun version 9.0.0",
		"its version":  "if [ $1 = features ]; then exit 1; fi; sleep 1000; echo crun version 9.0.0",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := runtimeOf(t, script).CheckUsers(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
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
