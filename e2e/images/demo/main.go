// Command demo is the workload of the demonstration: a key-value server that keeps each value in a file of
// its volume, and the helpers around it. Its sub-commands are the containers of a stateful application:
//
//	demo init    --data DIR              prepares the volume and counts the starts
//	demo serve   --data DIR --listen A   serves GET and PUT /kv/KEY, /version, /info, /healthz
//	demo sidecar --url URL --listen A    watches the server beside it and serves its state on /state
//	demo client  --url URL --count N     writes N values through the Service and reads them back
//	demo ingress --host H --url URL      passes requests for the host H on, as an ingress controller
//
// When it is called nginx it serves a page on port 80, as a stand-in for that image.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// version is set at link time: 1 or 2.
var version = "0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stdout, nil)).With("version", version)
	if err := run(ctx, log, os.Args); err != nil && !errors.Is(err, context.Canceled) {
		log.Error("demo ends", "err", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger, args []string) error {
	if filepath.Base(args[0]) == "nginx" {
		return listen(ctx, ":80", http.HandlerFunc(welcome))
	}
	if len(args) < 2 {
		return errors.New("usage: demo init|serve|sidecar|client|ingress|version [flags]")
	}

	fs := flag.NewFlagSet(args[1], flag.ContinueOnError)
	data := fs.String("data", "/data", "directory of the volume")
	address := fs.String("listen", ":8080", "address to serve on")
	url := fs.String("url", "http://127.0.0.1:8080", "the server's URL")
	host := fs.String("host", "", "the host for which there is a rule")
	count := fs.Int("count", 10, "number of values to write")
	if err := fs.Parse(args[2:]); err != nil {
		return err
	}

	switch args[1] {
	case "init":
		return prepare(log, *data)
	case "serve":
		return serve(ctx, log, *address, *data)
	case "sidecar":
		return sidecar(ctx, log, *address, *url)
	case "client":
		return client(ctx, log, *url, *count)
	case "ingress":
		h, err := ingress(*host, *url)
		if err != nil {
			return err
		}
		return listen(ctx, *address, h)
	case "version":
		fmt.Println(version)
		return nil
	}

	return fmt.Errorf("%q is none of init, serve, sidecar, client, ingress, version", args[1])
}

func welcome(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, "<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1>"+
		"<p>This is trivet's stand-in for it.</p></body></html>\n")
}

// listen serves until ctx ends, then lets running requests finish.
func listen(ctx context.Context, address string, h http.Handler) error {
	s := &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return s.Shutdown(ctx)
	}
}
