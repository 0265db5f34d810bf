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

  build --out DIR [--source REPOSITORY] [--coredns PROGRAM] [--metrics-server PROGRAM]
                                       write an OCI image layout
  serve --dir DIR [--listen ADDRESS]   serve it by the OCI distribution protocol`

func main() { program.Tool("trivet-images", run) }

func run(ctx context.Context, env *program.Env) error {
	verb := ""
	if len(env.Args) > 0 && !strings.HasPrefix(env.Args[0], "-") {
		verb, env.Args = env.Args[0], env.Args[1:]
	}

	fs := env.Flags(about)
	out := fs.String("out", ".trivet/images", "build: directory to replace with the layout")
	source := fs.String("source", ".", "build: root of the repository")
	coredns := fs.String("coredns", "", "build: the CoreDNS program; without it, there is no image of it")
	metricsServer := fs.String("metrics-server", "", "build: the same of metrics-server")
	dir := fs.String("dir", ".trivet/images", "serve: directory of the layout")
	listen := fs.String("listen", "127.0.0.1:5000", "serve: address")
	if err := env.Parse(fs); err != nil {
		return err
	}

	switch verb {
	case "build":
		b := images.Builder{Source: *source, CoreDNS: *coredns, MetricsServer: *metricsServer}
		return build(ctx, env, b, *out)
	case "serve":
		return serve(ctx, env, *dir, *listen)
	}

	return &program.UsageError{
		Err: fmt.Errorf("%q is neither build nor serve, see trivet-images --help", verb),
	}
}

// build builds what b says; its paths and out may be relative.
func build(ctx context.Context, env *program.Env, b images.Builder, out string) error {
	for _, p := range []*string{&b.Source, &out, &b.CoreDNS, &b.MetricsServer} {
		if *p == "" {
			continue
		}

		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}

		*p = abs
	}

	b.Say = func(format string, args ...any) { fmt.Fprintf(env.Stdout, format+"\n", args...) }
	return b.Build(ctx, out)
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
