package ociruntime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

const (
	// featuresLimit bounds how long a runtime may take to say what it can.
	featuresLimit = 10 * time.Second

	// maxFeatures bounds what is read of it, in bytes.
	maxFeatures = 1 << 20
)

// triedVersions are the first versions, major, minor and patch, of runtimes that have user namespaces though
// they may not have the features command.
var triedVersions = map[string][3]int{
	"crun": {1, 8, 1},
	"runc": {1, 1, 5},
}

// CheckUsers returns an error unless the runtime says that it has user namespaces, or is one without the
// features command that is known to have them: others might start a pod as users of the host.
func (r Runtime) CheckUsers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, featuresLimit)
	defer cancel()

	out, err := r.ask(ctx, "features")
	switch {
	case ctx.Err() != nil:
		return err
	case err != nil:
		if unknown := r.checkVersion(ctx); unknown != nil {
			return errors.Join(err, unknown)
		}
		return nil
	}

	var f features.Features
	if err := json.Unmarshal(out, &f); err != nil {
		return fmt.Errorf("%s features: %w", r.Program, err)
	}
	if f.Linux == nil || !slices.Contains(f.Linux.Namespaces, string(specs.UserNamespace)) {
		return fmt.Errorf("%s has no user namespaces", r.Program)
	}

	return nil
}

// versionLine is how the output of --version begins, such as "runc version 1.1.5+ds1".
var versionLine = regexp.MustCompile(`^(crun|runc) version (\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?`)

// checkVersion returns an error unless the runtime is one of triedVersions.
func (r Runtime) checkVersion(ctx context.Context) error {
	out, err := r.ask(ctx, "--version")
	if err != nil {
		return err
	}

	found := versionLine.FindSubmatch(out)
	if found == nil {
		return fmt.Errorf("%s --version: not a runtime that is known to have user namespaces", r.Program)
	}

	var version [3]int
	for i, number := range found[2:] {
		// One that is left out is 0.
		version[i], _ = strconv.Atoi(string(number))
	}

	if tried := triedVersions[string(found[1])]; slices.Compare(version[:], tried[:]) < 0 {
		const format = "%s: %s is not known to have user namespaces: it is older than %d.%d.%d"
		return fmt.Errorf(format, r.Program, found[0], tried[0], tried[1], tried[2])
	}

	return nil
}

// ask runs the runtime with one argument, and returns what it writes.
func (r Runtime) ask(ctx context.Context, argument string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, r.Program, argument)
	cmd.WaitDelay = time.Second

	// What it has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}

	// One that was left may hold the other end.
	stop := context.AfterFunc(ctx, func() { out.Close() })
	defer stop()

	data, err := io.ReadAll(io.LimitReader(out, maxFeatures))

	// One that writes more does not go on.
	out.Close()
	if waited := cmd.Wait(); err == nil {
		err = waited
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.Program, argument, err)
	}

	return data, nil
}
