package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/importer"
	"github.com/trivet-node/trivet/internal/program"
)

// importAction brings in archives.
func importAction(fs *flag.FlagSet) action {
	var o image.ImportOptions
	fs.BoolVar(&o.Pinned, "pin", false, "mark the images as not to be garbage collected")
	const help = "take the images for this platform, such as linux/arm64; empty: for the node's"
	fs.StringVar(&o.Platform, "platform", "", help)

	return func(ctx context.Context, env *program.Env, cfg config.Config, files []string) error {
		if len(files) == 0 {
			files = []string{"-"}
		}

		for _, name := range files {
			if err := importFile(ctx, env, cfg, name, o); err != nil {
				return err
			}
		}

		return nil
	}
}

// importFile brings in an archive and prints which images came of it, also of one that is not whole.
func importFile(
	ctx context.Context, env *program.Env, cfg config.Config, name string, o image.ImportOptions,
) error {
	from, shown := env.Stdin, "standard input"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		defer f.Close()

		from, shown = f, name
	}

	done, err := importer.Send(ctx, importSocket(cfg.StateDir), from, o)
	printImported(env.Stdout, done)
	if err != nil {
		return fmt.Errorf("import %s: %w", shown, err)
	}

	return nil
}

// exportAction writes an archive.
func exportAction(fs *flag.FlagSet) action {
	out := fs.String("o", "-", "file of the archive; -: standard output")
	return func(ctx context.Context, env *program.Env, cfg config.Config, names []string) error {
		if len(names) == 0 {
			return &program.UsageError{Err: errors.New("export: no image is named")}
		}

		receive := func(to io.Writer) error {
			return importer.Receive(ctx, importSocket(cfg.StateDir), names, to)
		}
		if *out == "-" {
			return receive(env.Stdout)
		}

		return writeWhole(*out, receive)
	}
}

// writeWhole makes a file that is there only when all of it is written.
func writeWhole(name string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}

	// Until it has its name.
	defer os.Remove(f.Name())

	err = write(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}

	return os.Rename(f.Name(), name)
}
