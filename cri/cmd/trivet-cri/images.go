package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/cri/importer"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
)

const aboutImages = `
trivet-cri images works on the images of the trivet-cri that runs on this node:

  import [--pin] [--platform OS/ARCHITECTURE] [FILE|-]...
                              bring in archives (docker save, OCI layout; plain or compressed),
                              by default from standard input
  export [-o FILE] NAME...    write images into an archive, by default to standard output
  list                        list images
  tag [--force] IMAGE NAME... give an image further names
  remove NAME...              take names from images, which go with the last one; an ID takes all`

// importSocket returns the socket on which the server takes archives.
func importSocket(stateDir string) string { return filepath.Join(stateDir, "images.sock") }

// imageOptions say where the server is, which has more of them.
var imageOptions = []option{
	{
		name:  "socket",
		help:  "unix socket of the server",
		field: func(c *config.Config) *string { return &c.Socket },
	},
	{
		name:  "state-dir",
		help:  "directory of the server's boot-scoped state",
		field: func(c *config.Config) *string { return &c.StateDir },
	},
}

// action works on the images of a server.
type action func(ctx context.Context, env *program.Env, cfg config.Config, args []string) error

// imageVerbs are the actions by name. Each adds its flags to those of all.
var imageVerbs = map[string]func(*flag.FlagSet) action{
	"import": importAction,
	"export": exportAction,
	"list":   func(*flag.FlagSet) action { return listAction },
	"tag":    tagAction,
	"remove": func(*flag.FlagSet) action { return removeAction },
}

// images is a client of a server that runs on this node.
func images(ctx context.Context, env *program.Env) error {
	env.Name = "trivet-cri images"
	env.Args = env.Args[1:]
	verb := ""
	if len(env.Args) > 0 && !strings.HasPrefix(env.Args[0], "-") {
		verb = env.Args[0]
		env.Args = env.Args[1:]
	}

	fs := env.Flags(aboutImages)
	settings := newSettings(fs, imageOptions)
	var act action
	if define := imageVerbs[verb]; define != nil {
		act = define(fs)
	}

	if err := env.Parse(fs); err != nil {
		return err
	}
	if act == nil {
		err := errors.New("say one of import, export, list, tag, remove (see trivet-cri images --help)")
		return &program.UsageError{Err: err}
	}

	cfg, err := settings.load()
	if err != nil {
		return &program.UsageError{Err: err}
	}

	return act(ctx, env, cfg, fs.Args())
}

// listAction prints a table of the images.
func listAction(ctx context.Context, env *program.Env, cfg config.Config, _ []string) error {
	list, err := listImages(ctx, cfg)
	if err != nil {
		return err
	}

	w := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tBYTES\tPINNED\tNAMES")
	for _, i := range list {
		names := i.RepoTags
		if len(names) == 0 {
			names = i.RepoDigests
		}

		fmt.Fprintf(w, "%s\t%d\t%t\t%s\n", i.Id, i.Size, i.Pinned, strings.Join(names, " "))
	}

	return w.Flush()
}

func listImages(ctx context.Context, cfg config.Config) ([]*runtimeapi.Image, error) {
	conn, err := socket.Dial(cfg.Socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()

	list, err := runtimeapi.NewImageServiceClient(conn).ListImages(ctx, &runtimeapi.ListImagesRequest{})
	return list.GetImages(), err
}

// tagAction gives an image further names.
func tagAction(fs *flag.FlagSet) action {
	force := fs.Bool("force", false, "give it also names that other images have")
	return func(ctx context.Context, _ *program.Env, cfg config.Config, args []string) error {
		if len(args) < 2 {
			return &program.UsageError{Err: errors.New("tag: want an image and a further name")}
		}
		return importer.Tag(ctx, importSocket(cfg.StateDir), args[0], args[1:], *force)
	}
}

// removeAction takes names from images.
func removeAction(ctx context.Context, _ *program.Env, cfg config.Config, names []string) error {
	if len(names) == 0 {
		return &program.UsageError{Err: errors.New("remove: no image is named")}
	}

	for _, name := range names {
		if err := importer.Untag(ctx, importSocket(cfg.StateDir), name); err != nil {
			return fmt.Errorf("remove: %w", err)
		}
	}

	return nil
}

// printImported prints images one a line, each with its names.
func printImported(to io.Writer, images []importer.Image) {
	for _, i := range images {
		fmt.Fprintln(to, strings.Join(append([]string{i.ID}, i.Tags...), " "))
	}
}
