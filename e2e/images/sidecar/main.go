// Command sidecar puts a proxy beside the containers of pods, as service meshes do. Its sub-commands are the
// parts of it:
//
//	sidecar inject   --listen A --certificates DIR --image I   serves the mutating webhooks /proxy and /watch
//	sidecar redirect --ports 8080,9090                         leads the pod's traffic through the proxy
//	sidecar proxy                                              passes connections on, and counts them
//
// The webhook /proxy adds redirect, which runs once, and proxy, which is a native sidecar, before all other
// init containers. /watch is the webhook of somebody else: it adds a container with a port of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	if err := run(ctx, log, os.Args[1:]); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "sidecar:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, args []string) error {
	usage := errors.New("usage: sidecar inject|redirect|proxy [flags]")
	if len(args) == 0 {
		return usage
	}

	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	listen := fs.String("listen", ":8443", "address of the webhooks")
	certificates := fs.String("certificates", "/certificates", "directory of tls.crt and tls.key")
	image := fs.String("image", "docker.io/trivet/sidecar:1", "image of what is injected")
	ports := fs.String("ports", "", "ports of the pod that the proxy serves, separated by commas")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}

	switch args[0] {
	case "inject":
		return serveWebhooks(ctx, log, *listen, *certificates, injector{image: *image})
	case "redirect":
		return redirect(ctx, *ports)
	case "proxy":
		return runProxy(ctx, log)
	default:
		return usage
	}
}
