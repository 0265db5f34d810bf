package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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

  import [--pin] [FILE|-]...   bring in archives (docker save, OCI layout; plain or compressed),
                               by default from standard input
  export [-o FILE] NAME...     write images into an archive, by default to standard output
  list                         list images
  remove NAME...               remove images with all their names`

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
	pin := fs.Bool("pin", false, "import: mark the images as not to be garbage collected")
	out := fs.String("o", "-", "export: the archive's file")
	if err := env.Parse(fs); err != nil {
		return err
	}

	cfg, err := settings.load()
	if err != nil {
		return &program.UsageError{Err: err}
	}

	switch verb {
	case "import":
		return importImages(ctx, env, cfg, fs.Args(), *pin)
	case "export":
		return exportImages(ctx, env, cfg, fs.Args(), *out)
	case "list":
		return listImages(ctx, env, cfg)
	case "remove":
		return removeImages(ctx, cfg, fs.Args())
	}

	err = errors.New("say one of import, export, list, remove (see trivet-cri images --help)")
	return &program.UsageError{Err: err}
}

func importImages(ctx context.Context, env *program.Env, cfg config.Config, files []string, pin bool) error {
	if len(files) == 0 {
		files = []string{"-"}
	}

	for _, name := range files {
		done, err := importFile(ctx, env, cfg, name, pin)
		for _, i := range done {
			fmt.Fprintln(env.Stdout, strings.Join(append([]string{i.ID}, i.Tags...), " "))
		}

		if err != nil {
			return fmt.Errorf("import %s: %w", name, err)
		}
	}

	return nil
}

func importFile(
	ctx context.Context, env *program.Env, cfg config.Config, name string, pin bool,
) ([]importer.Image, error) {
	from := env.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	return importer.Send(ctx, importSocket(cfg.StateDir), from, pin)
}

func exportImages(
	ctx context.Context, env *program.Env, cfg config.Config, names []string, out string,
) error {
	if len(names) == 0 {
		return &program.UsageError{Err: errors.New("export: no image is named")}
	}
	if out == "-" {
		return importer.Receive(ctx, importSocket(cfg.StateDir), names, env.Stdout)
	}

	f, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+"-")
	if err != nil {
		return err
	}

	// until it has its name
	defer os.Remove(f.Name())

	err = importer.Receive(ctx, importSocket(cfg.StateDir), names, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}

	return os.Rename(f.Name(), out)
}

func listImages(ctx context.Context, env *program.Env, cfg config.Config) error {
	conn, err := socket.Dial(cfg.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()

	list, err := runtimeapi.NewImageServiceClient(conn).ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return err
	}

	w := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tBYTES\tPINNED\tNAMES")
	for _, i := range list.Images {
		names := i.RepoTags
		if len(names) == 0 {
			names = i.RepoDigests
		}

		fmt.Fprintf(w, "%s\t%d\t%t\t%s\n", i.Id, i.Size, i.Pinned, strings.Join(names, " "))
	}

	return w.Flush()
}

func removeImages(ctx context.Context, cfg config.Config, names []string) error {
	if len(names) == 0 {
		return &program.UsageError{Err: errors.New("remove: no image is named")}
	}

	conn, err := socket.Dial(cfg.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()

	client := runtimeapi.NewImageServiceClient(conn)
	for _, name := range names {
		spec := &runtimeapi.ImageSpec{Image: name}
		there, err := client.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
		if err == nil && there.Image == nil {
			err = errors.New("there is no such image")
		}
		if err == nil {
			_, err = client.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: spec})
		}
		if err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}

	return nil
}
