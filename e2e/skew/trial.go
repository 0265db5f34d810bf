package skew

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/specs/subject"
)

// Trial is one cluster after the other, each brought up, shown the demo, and taken down.
type Trial struct {
	Program string // trivet-cluster
	Dir     string // of the clusters' state
	OCI     string // runtime of containers
	Out     io.Writer
}

// Try tries the programs of one version of Kubernetes, which are in a directory, with an agent. That it does
// not work is a result; an error is that it could not be tried.
func (t Trial) Try(ctx context.Context, bin, agent string) (r Result, err error) {
	version, err := versionOf(ctx, bin)
	if err != nil {
		return Result{}, err
	}
	if err := t.cluster(ctx, "down"); err != nil {
		return Result{}, err
	}

	r = Result{
		Kubernetes: version,
		Agent:      agent,
		Commit:     subject.Commit(ctx, "."),
		Date:       time.Now().UTC().Format(time.DateOnly),
	}
	fmt.Fprintf(t.Out, "== Kubernetes %s, agent %s\n", version, agent)
	seats := []string{"--bin=" + bin, "--agent=" + agent, "--oci=" + t.OCI}
	bad := timed(&r.Up, func() error { return t.cluster(ctx, "up", seats...) })
	if bad == nil {
		bad = timed(&r.Demo, func() error { return t.cluster(ctx, "demo", "--bin="+bin) })
	}
	if bad != nil {
		r.Failure = bad.Error()
	}

	// Whatever came out, nothing is left of it.
	after := context.WithoutCancel(ctx)
	err = errors.Join(t.cluster(after, "down"), t.cluster(after, "leaks", "--wait=30s"), ctx.Err())
	return r, err
}

// timed measures what is done, in seconds.
func timed(took *float64, do func() error) error {
	began := time.Now()
	err := do()
	*took = time.Since(began).Round(100 * time.Millisecond).Seconds()
	return err
}

// versionOf asks a program what version it is of: "Kubernetes v1.36.3".
func versionOf(ctx context.Context, bin string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "kube-apiserver"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("version of the programs in %s: %w", bin, err)
	}
	version, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "Kubernetes ")
	if !ok {
		return "", fmt.Errorf("the programs in %s say that they are of version %q", bin, out)
	}
	return version, nil
}

// cluster runs trivet-cluster. Its last line of output is what it has failed with.
func (t Trial) cluster(ctx context.Context, verb string, flags ...string) error {
	last := &lastLine{}
	cmd := exec.CommandContext(ctx, t.Program, append([]string{verb, "--dir=" + t.Dir}, flags...)...)
	cmd.Stdout, cmd.Stderr = t.Out, io.MultiWriter(t.Out, last)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", verb, err, last)
	}
	return nil
}

// lastLine keeps the last line that is written.
type lastLine struct{ text string }

func (l *lastLine) Write(p []byte) (int, error) {
	lines := strings.Split(strings.TrimSpace(string(p)), "\n")
	if line := lines[len(lines)-1]; line != "" {
		l.text = line
	}
	return len(p), nil
}

func (l *lastLine) String() string { return l.text }
