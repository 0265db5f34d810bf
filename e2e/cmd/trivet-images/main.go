// Command trivet-images builds the images of an offline cluster and serves them as a registry.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/images"
	"github.com/trivet-node/trivet/e2e/registry"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `trivet-images builds the images of a cluster without internet, and serves them as a registry.

  build --set SET [--out DIR] [--source REPOSITORY] [--programs DIR]
                                       write a set of images as an OCI image layout
  serve --dir DIR [--listen ADDRESS]   serve the layouts in the directory by the OCI distribution protocol`

func main() { program.Tool("trivet-images", run) }

func run(ctx context.Context, env *program.Env) error {
	verb := ""
	if len(env.Args) > 0 && !strings.HasPrefix(env.Args[0], "-") {
		verb, env.Args = env.Args[0], env.Args[1:]
	}

	fs := env.Flags(about)
	set := fs.String("set", "base", "build: "+strings.Join(images.Sets(), ", "))
	out := fs.String("out", "", "build: directory to replace with the layout (default .trivet/images/SET)")
	source := fs.String("source", ".", "build: root of the repository")
	programs := fs.String("programs", ".trivet/bin", "build: directory with CoreDNS, which is built already")
	dir := fs.String("dir", ".trivet/images", "serve: a layout, or a directory of them")
	listen := fs.String("listen", "127.0.0.1:5000", "serve: address")
	if err := env.Parse(fs); err != nil {
		return err
	}

	switch verb {
	case "build":
		if *out == "" {
			*out = filepath.Join(".trivet/images", *set)
		}

		return build(ctx, env, images.Builder{Source: *source, Programs: *programs}, *set, *out)

	case "serve":
		return serve(ctx, env, *dir, *listen)
	}

	return &program.UsageError{
		Err: fmt.Errorf("%q is neither build nor serve, see trivet-images --help", verb),
	}
}

// build builds a set; the paths of b and out may be relative.
func build(ctx context.Context, env *program.Env, b images.Builder, set, out string) error {
	for _, p := range []*string{&b.Source, &b.Programs, &out} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}

		*p = abs
	}

	b.Say = func(format string, args ...any) { fmt.Fprintf(env.Stdout, format+"\n", args...) }
	return b.Build(ctx, set, out)
}

func serve(ctx context.Context, env *program.Env, dir, listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return &program.CantRunError{What: err.Error(), Do: "choose another address with --listen"}
	}

	s := &http.Server{Handler: registry.Handler{Dir: dir}, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()

	env.Log.Info("serving", "dir", dir, "address", l.Addr().String())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}

	return nil
}
