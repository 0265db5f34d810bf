package specs

import (
	"bufio"
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

// junitName is the report in the report directory, which ginkgo writes when it is asked to, and the suite by
// itself.
const junitName = "junit_01.xml"

// runSuite runs a suite of ginkgo's until it ends, and reads its report: name of a spec -> result. What the
// suite prints is kept in e2e.log beside the report; total is for the progress only; 0 if it is not known.
func runSuite(cmd *exec.Cmd, reportDir string, total int, progress io.Writer) (map[string]Result, error) {
	report := filepath.Join(reportDir, junitName)
	if err := errors.Join(os.MkdirAll(reportDir, 0o755), os.RemoveAll(report)); err != nil {
		return nil, err
	}

	log, err := os.Create(filepath.Join(reportDir, "e2e.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()

	if err := runLogged(cmd, log, total, progress); err != nil {
		return nil, err
	}

	data, err := os.ReadFile(report)
	if err != nil {
		return nil, fmt.Errorf("the suite wrote no report, its output is in %s: %w", log.Name(), err)
	}

	found, err := readReport(data)
	if err != nil {
		return nil, fmt.Errorf("report %s: %w", report, err)
	}

	return found, nil
}

// runLogged returns no error when specs have failed: the report says which.
func runLogged(cmd *exec.Cmd, log io.Writer, total int, progress io.Writer) error {
	// A group of its own, to end all of it; so Ctrl-C does not reach it, but the end of its parent does.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}

	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}

	follow(io.TeeReader(out, log), total, progress)

	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return nil
	}

	return err
}

// A spec ends with a line such as "• [2.405 seconds]", "• [FAILED] [12.1 seconds]" or "S [SKIPPED] [0.1
// seconds]", then its name, which begins with a group in brackets.
var ended = regexp.MustCompile(
	`^(•|S) (\[(?:FAILED|SKIPPED|PANICKED|TIMEDOUT|INTERRUPTED)\] )?\[([0-9.]+) seconds\]`)

func follow(out io.Reader, total int, progress io.Writer) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 4<<20)
	var n int
	var verdict, took string
	for lines.Scan() {
		line := lines.Text()
		if m := ended.FindStringSubmatch(line); m != nil {
			verdict, took = strings.ToLower(strings.Trim(m[2], "[] ")), m[3]
			if verdict == "" {
				verdict = "passed"
			}

			continue
		}

		if verdict != "" && strings.HasPrefix(line, "[") {
			n++
			of := ""
			if total > 0 {
				of = fmt.Sprintf("/%d", total)
			}

			fmt.Fprintf(progress, "%3d%s %-7s %6ss %s\n", n, of, verdict, took, line)
		}

		verdict = ""
	}

	// After an over-long line the suite must not block.
	_, _ = io.Copy(io.Discard, out)
}
