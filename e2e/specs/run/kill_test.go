package run_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/e2e/specs/run"
	"github.com/trivet-node/trivet/e2e/specs/suite"
	"github.com/trivet-node/trivet/internal/retry"
)

// The test binary stands in for the suite, and for a process that runs it. Both find the directory of the
// test in the environment.
const (
	roleVariable = "RUN_TEST_ROLE"
	dirVariable  = "RUN_TEST_DIR"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(dirVariable)
	switch os.Getenv(roleVariable) {
	case "runner":
		os.Setenv(roleVariable, "suite")
		if err := runIn(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}

	case "suite":
		if err := beSuite(dir, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}

	default:
		os.Exit(m.Run())
	}
}

// names are the specs of the suite. The one that hangs ends when there is a file "go".
var names = []string{
	"[sig-node] A [Conformance]", "[sig-node] B", "[sig-node] C hangs", "[sig-node] D [Serial]",
}

// beSuite prints and writes what ginkgo does when it runs the specs that the flag focus chooses, and notes in
// a file which ones it began. It holds a lock as long as it lives.
func beSuite(dir string, args []string) error {
	lock, err := os.Create(filepath.Join(dir, "alive"))
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}

	var focus, reportDir string
	for _, arg := range args {
		if value, found := strings.CutPrefix(arg, "--focus="); found {
			focus = value
		}
		if value, found := strings.CutPrefix(arg, "--report-dir="); found {
			reportDir = value
		}
	}

	began, err := os.OpenFile(filepath.Join(dir, "began"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}

	chosen := regexp.MustCompile(focus)
	report := "<testsuites><testsuite>"
	for _, n := range names {
		if !chosen.MatchString("suite " + n) {
			continue
		}

		fmt.Fprintln(began, n)
		awaitGo(dir, n)
		fmt.Printf("• [0.1 seconds]\n%s [sig-node, x]\n------------------------------\n", n)
		report += fmt.Sprintf(`<testcase name="[It] %s [sig-node, x]" status="passed" time="0.1"/>`, n)
	}

	report += "</testsuite></testsuites>"
	return os.WriteFile(filepath.Join(reportDir, "junit_01.xml"), []byte(report), 0o644)
}

func awaitGo(dir, name string) {
	if !strings.Contains(name, "hangs") {
		return
	}

	for range retry.Every(context.Background(), 10*time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "go")); err == nil {
			return
		}
	}
}

// runIn runs the specs and keeps their results in the directory.
func runIn(ctx context.Context, dir string) error {
	log, err := results.Open(filepath.Join(dir, "results.jsonl"), results.Subject{Commit: "c"}, false)
	if err != nil {
		return err
	}
	defer log.Close()

	e2e := suite.E2E{
		Program:    os.Args[0],
		Ginkgo:     os.Args[0],
		Kubeconfig: filepath.Join(dir, "kubeconfig"),
		ReportDir:  filepath.Join(dir, "specs"),
	}

	return run.New(run.Config{
		Suite: e2e,
		Log:   log,
		Names: names,
		Procs: 2,
		Out:   io.Discard,
	}).Do(ctx)
}

func TestARunThatWasKilledGoesOnWhereItWas(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(dirVariable, dir)

	runner := exec.Command(os.Args[0])
	runner.Env = append(os.Environ(), roleVariable+"=runner")
	if err := runner.Start(); err != nil {
		t.Fatal(err)
	}

	await(t, func() bool {
		data, _ := os.ReadFile(filepath.Join(dir, "results.jsonl"))
		began, _ := os.ReadFile(filepath.Join(dir, "began"))
		return strings.Contains(string(data), names[1]) && strings.Contains(string(began), names[2]+"\n")
	})
	if err := runner.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	_ = runner.Wait()
	await(t, func() bool { return !alive(dir) })

	// The power may have gone while a line was written.
	tear(t, filepath.Join(dir, "results.jsonl"))
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}

	t.Setenv(roleVariable, "suite")
	if err := runIn(t.Context(), dir); err != nil {
		t.Fatal(err)
	}

	_, set, err := results.Read(filepath.Join(dir, "results.jsonl"))
	if err != nil || len(set) != len(names) {
		t.Errorf("results of %d specs, %v, want %d", len(set), err, len(names))
	}

	began, err := os.ReadFile(filepath.Join(dir, "began"))
	want := strings.Join([]string{names[0], names[1], names[2], names[2], names[3], ""}, "\n")
	if err != nil || string(began) != want {
		t.Errorf("specs began in this order, %v:\n%s", err, began)
	}
}

// alive reports whether a suite runs.
func alive(dir string) bool {
	lock, err := os.Open(filepath.Join(dir, "alive"))
	if err != nil {
		return false
	}
	defer lock.Close()
	return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}

// tear appends a line that was cut off.
func tear(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(`{"spec":"[sig-node] C ha`); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range retry.Every(ctx, 10*time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatal("it did not come to pass within a minute")
}
