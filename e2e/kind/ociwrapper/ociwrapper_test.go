package ociwrapper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const process = `{"args":["sh"],"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_RESOURCE"],` +
	`"effective":["CAP_SYS_RESOURCE"]},"oomScoreAdj":-999,` +
	`"rlimits":[{"hard":18446744073709551615,"soft":9,"type":"RLIMIT_NOFILE"}]}`

const lowered = `{"args":["sh"],"capabilities":{"bounding":["CAP_CHOWN"],"effective":[]}}`

func write(t *testing.T, name, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestCreatedContainerAsksForNoMoreThanThereIs(t *testing.T) {
	for _, flags := range [][]string{{"--bundle", "DIR"}, {"--bundle=DIR"}, {"-b", "DIR"}} {
		dir := write(t, "config.json", `{"linux":{},"process":`+process+`}`)
		args := []string{"--root", "/run/x", "create"}
		for _, f := range flags {
			args = append(args, strings.Replace(f, "DIR", dir, 1))
		}

		if err := Prepare(append(args, "id")); err != nil {
			t.Fatal(err)
		}

		want := `{"linux":{},"process":` + lowered + `}`
		if diff := cmp.Diff(want, read(t, filepath.Join(dir, "config.json"))); diff != "" {
			t.Errorf("%v (-want +got):\n%s", flags, diff)
		}
	}
}

func TestExecutedProcessAsksForNoMoreThanThereIs(t *testing.T) {
	dir := write(t, "p.json", process)
	if err := Prepare([]string{"exec", "--process", filepath.Join(dir, "p.json"), "id"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lowered, read(t, filepath.Join(dir, "p.json"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOOMScoreOfZeroAndMoreStays(t *testing.T) {
	dir := write(t, "p.json", `{"oomScoreAdj":100}`)
	if err := Prepare([]string{"exec", "-p", filepath.Join(dir, "p.json"), "id"}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "p.json")); got != `{"oomScoreAdj":100}` {
		t.Errorf("process %s", got)
	}
}

func TestOtherCommandsAreLeftAlone(t *testing.T) {
	if err := Prepare([]string{"--root", "/run/x", "delete", "--force", "id"}); err != nil {
		t.Error(err)
	}
}

func TestFileThatIsNotAnObjectIsNamed(t *testing.T) {
	for _, text := range []string{"", "null", "[]"} {
		dir := write(t, "config.json", text)
		err := Prepare([]string{"create", "--bundle", dir, "id"})
		if err == nil || !strings.Contains(err.Error(), "config.json") {
			t.Errorf("%q: error %v", text, err)
		}
	}
}
