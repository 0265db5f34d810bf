// Command webserver stands in for nginx and httpd in the images of critest: one page on port 80, or on the
// port of the environment variable PORT. Called nginx, it has nginx's process title and /var/run/nginx.pid;
// called anything else, it logs as httpd does.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	page  = "<html><head><title>Welcome to nginx!</title></head><body><h1>It works!</h1></body></html>\n"
	title = "nginx: master process nginx"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}

	if filepath.Base(program) != "nginx" {
		fmt.Fprintln(os.Stderr, "[core:notice] AH00094: Command line: 'httpd -D FOREGROUND'")
		return serve()
	}

	// The title of a process is its arguments: only an exec sets them.
	if os.Args[0] != title {
		return syscall.Exec(program, append([]string{title}, os.Args[1:]...), os.Environ())
	}
	if err := os.WriteFile("/var/run/nginx.pid", []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return err
	}

	return serve()
}

// serve answers every request with the page until a signal ends it.
func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer stop()

	port := os.Getenv("PORT")
	if port == "" {
		port = "80"
	}

	answer := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, page) }
	server := &http.Server{
		Addr:              ":" + port,
		Handler:           http.HandlerFunc(answer),
		ReadHeaderTimeout: 10 * time.Second,
	}

	context.AfterFunc(ctx, func() { server.Close() })

	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}

	return nil
}
