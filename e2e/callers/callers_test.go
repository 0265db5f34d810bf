package callers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestEachScriptHasAllFunctions(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, scripts); err != nil {
		t.Fatal(err)
	}

	functions := []string{
		"prepare", "load", "networks", "network", "unnetwork",
		"run", "inside", "check", "restart", "remove",
	}
	for _, c := range all {
		wanted := functions
		if c.module == "" {
			wanted = append(wanted, "version")
		}
		if len(c.daemon) > 0 {
			wanted = append(wanted, "ready")
		}
		if c.upgraded {
			wanted = without(wanted, "restart")
		}

		script := filepath.Join(dir, "scripts", c.name+".sh")
		for _, f := range wanted {
			cmd := exec.Command("sh", "-euc", `. "$0"; type "$1"`, script, f)
			cmd.Env = append(os.Environ(), "SCRIPTS="+filepath.Dir(script), "PROGRAMS=/p", "PODMAN=/p")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "function") {
				t.Errorf("%s: %s: %v: %s", c.name, f, err, out)
			}
		}
	}
}

func without(all []string, name string) (rest []string) {
	for _, a := range all {
		if a != name {
			rest = append(rest, a)
		}
	}
	return rest
}

// Else nothing would be tried, and everything would seem to work.
func TestNameOfNoCallerIsAnError(t *testing.T) {
	err := Run{Work: t.TempDir()}.Do(t.Context(), []string{"podmn"}, true)
	if err == nil || !strings.Contains(err.Error(), `"podmn"`) {
		t.Errorf("error %v", err)
	}
}
