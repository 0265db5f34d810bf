// Package specs runs chosen specs of the published Kubernetes end-to-end suite (e2e.test) against a cluster and tells, spec by spec,
// what passed. The suite is the real one: this package only chooses by exact name, follows the run, and reads its JUnit report.
package specs

import (
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

//go:embed smoke.txt
var smoke string

// Smoke are the names of the smoke set.
func Smoke() []string { return Parse(smoke) }

// Parse reads one spec name a line; empty lines and lines that start with # are skipped.
func Parse(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, line)
		}
	}
	return names
}

// Config says which suite runs against which cluster.
type Config struct {
	Suite      string   // path of the e2e.test binary
	Ginkgo     string   // path of the ginkgo command; empty runs the suite in one process
	Procs      int      // parallel processes, used with Ginkgo
	Kubeconfig string   // an administrator's
	Kubectl    string   // path of kubectl, which some specs run
	ReportDir  string   // receives junit_01.xml and e2e.log
	Names      []string // exact spec names
}

// Outcome of one spec.
type Outcome string

// The outcomes. Missing is a name that the suite does not have: a wrong list, or another version of the suite.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
	Missing Outcome = "missing"
)

// Result of one spec.
type Result struct {
	Name    string
	Outcome Outcome
	Took    time.Duration
	Message string // of a failure or a skip, its first line
}

// Run runs the named specs and returns one result a name, in their order. The error is about the run itself (the suite cannot start, its
// report cannot be read); failed specs are results. Progress gets one line for each spec that ends.
func Run(ctx context.Context, c Config, progress io.Writer) ([]Result, error) {
	if err := os.MkdirAll(c.ReportDir, 0o755); err != nil {
		return nil, err
	}
	report := filepath.Join(c.ReportDir, "junit_01.xml")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := runSuite(ctx, c, progress); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(report)
	if err != nil {
		return nil, fmt.Errorf("the suite wrote no report, its output is in %s: %w", filepath.Join(c.ReportDir, "e2e.log"), err)
	}
	found, err := readReport(data)
	if err != nil {
		return nil, fmt.Errorf("report %s: %w", report, err)
	}
	return pick(found, c.Names), nil
}

// Focus is a regular expression that matches just the given names.
func Focus(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = regexp.QuoteMeta(n)
	}
	return "(" + strings.Join(quoted, "|") + ")$"
}

func runSuite(ctx context.Context, c Config, progress io.Writer) error {
	log, err := os.Create(filepath.Join(c.ReportDir, "e2e.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := suiteCommand(ctx, c)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.Suite, err)
	}
	follow(io.TeeReader(out, log), len(c.Names), progress)
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return nil // a failed spec; the report says which
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func suiteCommand(ctx context.Context, c Config) *exec.Cmd {
	focus := "--ginkgo.focus=" + Focus(c.Names)
	args := []string{"--provider=skeleton", "--kubeconfig=" + c.Kubeconfig, "--kubectl-path=" + c.Kubectl,
		"--report-dir=" + c.ReportDir, "--disable-log-dump=true", "--dns-domain=cluster.local"}
	name := c.Suite
	if c.Ginkgo == "" {
		args = append(args, "--ginkgo.no-color", "--ginkgo.v", focus)
	} else {
		name = c.Ginkgo
		args = append([]string{"run", fmt.Sprintf("--procs=%d", max(c.Procs, 1)), "--no-color", "-v", "--keep-going",
			strings.Replace(focus, "--ginkgo.focus", "--focus", 1), c.Suite, "--"}, args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECACHEDIR="+filepath.Join(filepath.Dir(c.Kubeconfig), "kubectl-cache"))
	// A group of its own, to end all of it; so Ctrl-C does not reach it, but the end of whoever ran it does.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// A spec ends with a line such as "• [2.405 seconds]", "• [FAILED] [12.1 seconds]" or "S [SKIPPED] [0.1 seconds]", then its name.
var ended = regexp.MustCompile(`^(•|S) (\[(?:FAILED|SKIPPED|PANICKED|TIMEDOUT|INTERRUPTED)\] )?\[([0-9.]+) seconds\]`)

func follow(out io.Reader, total int, progress io.Writer) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 4<<20)
	n, verdict, took := 0, "", ""
	for lines.Scan() {
		line := lines.Text()
		if m := ended.FindStringSubmatch(line); m != nil {
			verdict, took = strings.ToLower(strings.Trim(m[2], "[] ")), m[3]
			if verdict == "" {
				verdict = "passed"
			}
			continue
		}
		if verdict != "" && strings.HasPrefix(line, "[sig-") {
			n++
			fmt.Fprintf(progress, "%3d/%d %-7s %6ss %s\n", n, total, verdict, took, line)
		}
		verdict = ""
	}
	_, _ = io.Copy(io.Discard, out) // after an over-long line the suite must not block
}

type junit struct {
	Suites []struct {
		Cases []junitCase `xml:"testcase"`
	} `xml:"testsuite"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Seconds float64       `xml:"time,attr"`
	Status  string        `xml:"status,attr"`
	Failure *junitMessage `xml:"failure"`
	Error   *junitMessage `xml:"error"`
	Skipped *junitMessage `xml:"skipped"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
}

// readReport maps the name of each spec that the suite knows to its result. A suite that did not find the cluster fit to begin is an error.
func readReport(data []byte) (map[string]Result, error) {
	var j junit
	if err := xml.Unmarshal(data, &j); err != nil {
		return nil, err
	}
	found := map[string]Result{}
	for _, s := range j.Suites {
		for _, c := range s.Cases {
			name, isSpec := strings.CutPrefix(c.Name, "[It] ")
			if !isSpec {
				if m := cmp.Or(c.Failure, c.Error); m != nil && strings.HasSuffix(c.Name, "BeforeSuite]") {
					return nil, fmt.Errorf("the suite did not begin: %s", firstLine(m.Message))
				}
				continue
			}
			name = withoutLabels(name)
			r := Result{Name: name, Outcome: Passed, Took: time.Duration(c.Seconds * float64(time.Second))}
			switch {
			case c.Failure != nil:
				r.Outcome, r.Message = Failed, firstLine(c.Failure.Message)
			case c.Error != nil:
				r.Outcome, r.Message = Failed, firstLine(c.Error.Message)
			case c.Skipped != nil:
				r.Outcome, r.Message = Skipped, firstLine(c.Skipped.Message)
			}
			found[name] = r
		}
	}
	return found, nil
}

// withoutLabels drops what ginkgo's reporter appends to a name: the labels, in brackets and comma-separated.
func withoutLabels(name string) string {
	if i := strings.LastIndex(name, " ["); i >= 0 && strings.HasSuffix(name, "]") && strings.Contains(name[i:], ", ") {
		return name[:i]
	}
	return name
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

func pick(found map[string]Result, names []string) []Result {
	out := make([]Result, len(names))
	for i, n := range names {
		r, ok := found[n]
		if !ok {
			r = Result{Name: n, Outcome: Missing, Message: "the suite has no spec of this name"}
		}
		out[i] = r
	}
	return out
}
