package program

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// try runs a program with captured output.
func try(args []string, run func(context.Context, *Env) error) (code int, out, errout string) {
	var stdout, stderr strings.Builder
	env := &Env{
		Name:   "trivet-x",
		Args:   args,
		Stdin:  strings.NewReader(""),
		Stdout: &stdout,
		Stderr: &stderr,
		Log:    slog.New(slog.DiscardHandler),
	}
	code = exitCode(env, run(context.Background(), env))
	return code, stdout.String(), stderr.String()
}

func parse(_ context.Context, env *Env) error { return env.Parse(env.Flags("Does x.")) }

func TestHelpAndVersionAreAnswersNotFailures(t *testing.T) {
	if code, out, errout := try([]string{"--help"}, parse); code != ExitOK ||
		!strings.HasPrefix(out, "Does x.") || !strings.Contains(out, "-log-level") || errout != "" {
		t.Errorf("--help: exit %d, stdout %q, stderr %q", code, out, errout)
	}
	if code, out, errout := try([]string{"--version"}, parse); code != ExitOK ||
		out != "trivet-x "+Version+"\n" || errout != "" {
		t.Errorf("--version: exit %d, stdout %q, stderr %q", code, out, errout)
	}
}

func TestOnlyADaemonMayBeCutShort(t *testing.T) {
	canceled := func(context.Context, *Env) error { return context.Canceled }
	if code, _, errout := try(nil, canceled); code != ExitOK || errout != "" {
		t.Errorf("daemon: exit %d, stderr %q", code, errout)
	}
	if code, _, errout := try(nil, toTheEnd(canceled)); code != ExitFailed ||
		!strings.Contains(errout, "canceled") {
		t.Errorf("tool: exit %d, stderr %q", code, errout)
	}
}

func TestFailuresAreOneLineAndAnExitCode(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		err  error
		code int
	}{
		{"unknown flag", []string{"--nope"}, nil, ExitUsage},
		{"bad level", []string{"--log-level=loud"}, nil, ExitUsage},
		{
			"environment",
			nil,
			&CantRunError{What: "no OCI runtime found", Do: "install crun or runc"},
			ExitCantRun,
		},
		{"run", nil, errors.New("disk on fire"), ExitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, errout := try(c.args, func(ctx context.Context, env *Env) error {
				if err := parse(ctx, env); err != nil {
					return err
				}

				return c.err
			})
			if code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			if want := min(c.code, 1); strings.Count(errout, "\n") != want {
				t.Errorf("stderr %q, want %d line", errout, want)
			}
		})
	}
}

func TestModesOfFilesDoNotDependOnWhoStartedTheProgram(t *testing.T) {
	for _, inherited := range []int{0, 0o077} {
		defer syscall.Umask(syscall.Umask(inherited))
		file := filepath.Join(t.TempDir(), "f")
		Run("trivet-x", nil, func(context.Context, *Env) error { return os.WriteFile(file, nil, 0o666) })
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("umask %#o: %v, %v", inherited, info, err)
		}
	}
}

func TestFlagsHaveTwoDashes(t *testing.T) {
	flags := func(_ context.Context, env *Env) error {
		fs := env.Flags("Does x.")
		fs.Int("max-pods", 110, "number of `pods`")
		fs.String("name", "n", "name of the node")
		fs.Bool("quiet", false, "say less")
		fs.Func("label", "a label", func(string) error { return errors.New("not so") })
		return env.Parse(fs)
	}

	_, help, _ := try([]string{"--help"}, flags)
	for _, want := range []string{
		"\n  --max-pods pods\n        number of pods (default 110)\n",
		"\n  --name string\n        name of the node (default \"n\")\n",
		"\n  --quiet\n        say less\n",
		"\n  --label value\n        a label\n",
		"\n  --log-level string\n",
	} {
		if !strings.Contains(help, want) {
			t.Errorf("no %q in the help:\n%s", want, help)
		}
	}

	for arg, want := range map[string]string{
		"--nope":       "not defined: --nope (",
		"-nope":        "not defined: --nope (",
		"--max-pods=a": `invalid value "a" for flag --max-pods: `,
		"--max-pods":   "needs an argument: --max-pods (",
		"--quiet=a -b": `invalid boolean value "a -b" for --quiet: `,
		"--label=-x":   `invalid value "-x" for flag --label: not so`,
	} {
		if _, _, errout := try([]string{arg}, flags); !strings.Contains(errout, want) {
			t.Errorf("%s: %q, want %q", arg, errout, want)
		}
	}
}

func TestWarningsThatAreRepeatedAreOneLine(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		_, _, errout := try([]string{"--log-format=" + format}, func(ctx context.Context, env *Env) error {
			err := parse(ctx, env)
			for range 10 {
				env.Log.Warn("report status", "pod", "default/web")
			}
			return err
		})
		if strings.Count(errout, "\n") != 1 {
			t.Errorf("%s: %s", format, errout)
		}
	}
}

func TestWhatLibrariesPrintIsInTheLog(t *testing.T) {
	_, _, errout := try(nil, func(ctx context.Context, env *Env) error {
		err := parse(ctx, env)
		for range 10 {
			log.Print("http: Accept error: too many open files")
		}
		return err
	})
	if strings.Count(errout, "\n") != 1 || !strings.Contains(errout, `level=WARN msg="http: Accept error: `) {
		t.Errorf("%s", errout)
	}
}
