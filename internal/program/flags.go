package program

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
)

var errVersionShown = errors.New("version shown")

// Flags returns a flag set whose --help starts with about, a few lines that a stranger understands. The
// common flags (--version, --log-level, --log-format) are added by Parse.
func (e *Env) Flags(about string) *flag.FlagSet {
	fs := flag.NewFlagSet(e.Name, flag.ContinueOnError)
	fs.SetOutput(e.Stdout)
	fs.Usage = func() {
		fmt.Fprintf(e.Stdout, "%s\n\nUsage: %s [flags]\n\nFlags:\n", strings.TrimSpace(about), e.Name)
		fs.VisitAll(func(f *flag.Flag) { printFlag(e.Stdout, f) })
	}
	return fs
}

// printFlag prints a flag with two dashes, as kubelet does: package flag accepts both forms and prints one.
func printFlag(w io.Writer, f *flag.Flag) {
	kind, usage := flag.UnquoteUsage(f)
	line := "  --" + f.Name
	if kind != "" {
		line += " " + kind
	}
	fmt.Fprintf(w, "%s\n        %s%s\n", line, usage, defaultOf(f))
}

// defaultOf is the end of a flag's usage, empty for a default that says nothing.
func defaultOf(f *flag.Flag) string {
	switch f.DefValue {
	case "", "0", "0s", "false":
		return ""
	}
	if getter, ok := f.Value.(flag.Getter); ok {
		if _, text := getter.Get().(string); text {
			return fmt.Sprintf(" (default %q)", f.DefValue)
		}
	}
	return fmt.Sprintf(" (default %s)", f.DefValue)
}

// twoDashes writes the name of a flag in an error of package flag as users write it.
func twoDashes(err error) error {
	text := err.Error()
	for _, before := range []string{"flag provided but not defined: ", "flag needs an argument: "} {
		if name, ok := strings.CutPrefix(text, before+"-"); ok {
			return errors.New(before + "--" + name)
		}
	}

	// The value comes first, quoted, and may look like anything: invalid value "x" for flag -name: why.
	for _, before := range []string{"invalid value ", "invalid boolean value "} {
		rest, ok := strings.CutPrefix(text, before)
		value, err := strconv.QuotedPrefix(rest)
		if !ok || err != nil {
			continue
		}
		of, name, found := strings.Cut(rest[len(value):], "-")
		if found {
			return errors.New(before + value + of + "--" + name)
		}
	}
	return err
}

// Parse parses e.Args into fs and sets up the logger. Its error, if any, is to be returned from run as it is.
func (e *Env) Parse(fs *flag.FlagSet) error {
	version := fs.Bool("version", false, "print the version and exit")
	level := fs.String("log-level", "info", "least level that is logged: debug, info, warn, error")
	format := fs.String("log-format", "text", "form of the log lines: text or json")
	fs.Init(e.Name, flag.ContinueOnError)

	// Package flag would print the error and the usage; one clear line is enough.
	out, usage := fs.Output(), fs.Usage
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	err := fs.Parse(e.Args)
	fs.SetOutput(out)
	fs.Usage = usage

	switch {
	case errors.Is(err, flag.ErrHelp):
		fs.Usage()
		return err
	case err != nil:
		return &UsageError{fmt.Errorf("%w (see %s --help)", twoDashes(err), e.Name)}
	case *version:
		fmt.Fprintln(e.Stdout, e.Name, Version)
		return errVersionShown
	}

	log, err := NewLogger(e.Stderr, *level, *format)
	if err != nil {
		return &UsageError{err}
	}

	e.Log = log

	// What libraries print (package log), such as HTTP servers of connections that they cannot accept.
	slog.SetLogLoggerLevel(slog.LevelWarn)
	slog.SetDefault(log)
	return nil
}
