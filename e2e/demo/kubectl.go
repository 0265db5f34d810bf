package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/patience"
	"github.com/trivet-node/trivet/internal/retry"
)

// kubectl is the real one, as a person would call it in the demo's namespace.
type kubectl struct {
	program    string
	kubeconfig string
	out        io.Writer // receives what is shown
}

func (k kubectl) command(ctx context.Context, args ...string) *exec.Cmd {
	common := []string{"--kubeconfig=" + k.kubeconfig, "--namespace=" + namespace}
	cmd := exec.CommandContext(ctx, k.program, append(common, patience.OfArgs(args)...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// end interrupts a command that would go on, and waits for it; its error is that of the interrupt.
func end(cmd *exec.Cmd, cancel context.CancelFunc) {
	cancel()
	_ = cmd.Wait()
}

// run returns what the command prints; its error has what it said on stderr.
func (k kubectl) run(ctx context.Context, args ...string) (string, error) {
	cmd := k.command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s",
			strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// field reads a JSON path of an object (KIND/NAME).
func (k kubectl) field(ctx context.Context, object, path string) (string, error) {
	return k.run(ctx, "get", object, "-o", "jsonpath={"+path+"}")
}

// column reads a JSON path of each object of a list, one a line, and returns the lines. args choose the list.
func (k kubectl) column(ctx context.Context, path string, args ...string) ([]string, error) {
	each := "jsonpath={range .items[*]}{" + path + "}{\"\\n\"}{end}"
	out, err := k.run(ctx, append(append([]string{"get"}, args...), "-o", each)...)
	return strings.Fields(out), err
}

// table reads a JSON path of each object of a list, by the names of the objects. args choose the list.
func (k kubectl) table(ctx context.Context, path string, args ...string) (map[string]string, error) {
	lines, err := k.column(ctx, ".metadata.name}={"+path, args...)
	values := map[string]string{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		values[name] = value
	}
	return values, err
}

// show prints a command's output, indented.
func (k kubectl) show(ctx context.Context, args ...string) (string, error) {
	out, err := k.run(ctx, args...)
	if err != nil {
		return out, err
	}

	fmt.Fprintf(k.out, "         $ kubectl %s\n", strings.Join(args, " "))
	k.indent(out)
	return out, nil
}

func (k kubectl) indent(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(k.out, "           %s", line)
	}
}

// until repeats a look until it succeeds or the limit is over, and returns the last error.
func until(ctx context.Context, limit time.Duration, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience.Of(limit))
	defer cancel()
	interval := 200 * time.Millisecond
	return retry.Until(ctx, retry.Backoff{First: interval, Max: interval}, look)
}

// contains returns an error that has the text when want is not in it.
func contains(text, want string) error {
	if strings.Contains(text, want) {
		return nil
	}
	return fmt.Errorf("%q is not in: %s", want, strings.TrimSpace(text))
}
