package suite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// What is kept in the report directory. The report is written by ginkgo when it is asked to, and by e2e.test
// by itself.
const (
	junitName = "junit_01.xml"
	logName   = "e2e.log"
)

// endGrace is how long a suite that is told to end may clean up.
const endGrace = 20 * time.Second

// Clear removes what suites have written into the report directory.
func Clear(reportDir string) error { return os.RemoveAll(reportDir) }

// JUnitFlags are the flags of ginkgo for the report that Execute reads.
func JUnitFlags(reportDir string) []string {
	return []string{"--output-dir=" + reportDir, "--junit-report=" + junitName}
}

// Execute runs a suite until it ends, and returns the results in its report by the names of the specs. ended
// is called for each spec as it ends, in the goroutine of the caller. What the suite prints is added to
// e2e.log beside the report.
func Execute(cmd *exec.Cmd, reportDir string, ended func(Result)) (map[string]Result, error) {
	report := filepath.Join(reportDir, junitName)
	if err := errors.Join(os.MkdirAll(reportDir, 0o755), os.RemoveAll(report)); err != nil {
		return nil, err
	}

	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	log, err := os.OpenFile(filepath.Join(reportDir, logName), flags, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	if err := runLogged(cmd, log, ended); err != nil {
		return nil, fmt.Errorf("%w; its output is in %s", err, log.Name())
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
func runLogged(cmd *exec.Cmd, log io.Writer, ended func(Result)) error {
	// A group of its own, to end all of it; so Ctrl-C does not reach it, but the end of its parent does.
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	}

	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = endGrace
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}

	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}

	follow(io.TeeReader(out, log), ended)

	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}

	return nil
}
