// Package program is what the main function of every trivet binary does: signals become a cancelled context,
// logs are structured, --version and --help answer the same way everywhere, and a start that fails ends with
// one clear line and an exit code.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/trivet-node/trivet/internal/loglimit"
	"github.com/trivet-node/trivet/internal/supervisor"
)

// Version is set at link time (-X .../internal/program.Version=v0.1.0).
var Version = "v0.0.0-dev"

// Exit codes of all trivet binaries.
const (
	ExitOK     = 0
	ExitFailed = 1 // the program started and ended with an error
	ExitUsage  = 2 // flags or configuration are wrong

	// The environment lacks something: not root, socket taken, kernel feature or OCI runtime missing.
	ExitCantRun = 3
)

// CantRunError says what the environment lacks and what to do about it. It ends the program with ExitCantRun.
type CantRunError struct {
	What string // "socket /run/trivet/cri.sock is served by another process"
	Do   string // "stop it, or choose another path with --listen"
}

func (e *CantRunError) Error() string { return e.What + "; " + e.Do }

// UsageError is wrong use of flags or a bad configuration file. It ends the program with ExitUsage.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// Env is what a program's run function gets from its surroundings.
type Env struct {
	Name   string
	Args   []string // without the program's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Log    *slog.Logger // set by Parse; before that it writes to Stderr at level info

	// Supervisor has started the process, if it is a service.
	Supervisor supervisor.Supervisor
}

// Main runs the program and ends the process. SIGINT and SIGTERM cancel ctx; a second one ends the process at
// once. A program that ends because of the first has succeeded: that is how daemons end.
func Main(name string, run func(ctx context.Context, env *Env) error) {
	os.Exit(Run(name, os.Args[1:], run))
}

// Tool is Main for a program that does one thing and ends: it has failed when a signal cuts that short.
func Tool(name string, run func(ctx context.Context, env *Env) error) { Main(name, toTheEnd(run)) }

// toTheEnd makes a cancelled run a failed one.
func toTheEnd(run func(ctx context.Context, env *Env) error) func(ctx context.Context, env *Env) error {
	return func(ctx context.Context, env *Env) error {
		err := run(ctx, env)
		if errors.Is(err, context.Canceled) {
			return errors.New(err.Error())
		}
		return err
	}
}

// Umask is that of all trivet programs, however they are started: with 077 no container could read its
// /etc/resolv.conf, with 0 everybody could write what was made with os.Create.
const Umask = 0o022

// Run is Main without os.Exit: it returns the exit code.
func Run(name string, args []string, run func(ctx context.Context, env *Env) error) int {
	syscall.Umask(Umask)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	// After the first signal the default action is back: a second one kills.
	go func() {
		<-ctx.Done()
		stop()
	}()

	env := &Env{
		Name:   name,
		Args:   args,
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}

	var err error
	if env.Supervisor, err = supervisor.FromEnvironment(); err != nil {
		env.Log.Warn("not all is reported to the service manager", "err", err)
	}

	err = run(ctx, env)
	if limit, limited := env.Log.Handler().(*loglimit.Handler); limited {
		limit.Flush(ctx)
	}

	return exitCode(env, err)
}

// exitCode returns the exit code for the error of a run, and prints the error.
func exitCode(env *Env, err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp), errors.Is(err, context.Canceled):
		return ExitOK
	case errors.Is(err, errVersionShown):
		return ExitOK
	}

	fmt.Fprintf(env.Stderr, "%s: %v\n", env.Name, err)
	if _, ok := errors.AsType[*CantRunError](err); ok {
		return ExitCantRun
	}
	if _, ok := errors.AsType[*UsageError](err); ok {
		return ExitUsage
	}

	return ExitFailed
}

// NewLogger returns a logger of the named level (debug, info, warn, error) and format (text, json). Warnings
// and errors that are repeated are limited (loglimit).
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q is none of debug, info, warn, error", level)
	}

	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(loglimit.New(slog.NewTextHandler(w, opts))), nil
	case "json":
		return slog.New(loglimit.New(slog.NewJSONHandler(w, opts))), nil
	}

	return nil, fmt.Errorf("log format %q is neither text nor json", format)
}

// RequireRoot returns an error that says what to do if the process is not root.
func RequireRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return &CantRunError{
		What: "not running as root",
		Do:   "start it as root (it makes mounts, namespaces and cgroups)",
	}
}
