// Command etcd-writer shows that etcd keeps what it has acknowledged, whatever happens to its members:
//
//	etcd-writer write --endpoints URL --journal DIR [--workers N] [--every D]
//	etcd-writer check --endpoints URL --journal DIR [--before MILLISECONDS]
//
// Each worker of write puts one key after the other, and notes each that was acknowledged in a journal of its
// own. Check reads all keys, and fails when one that was acknowledged is not there; --before leaves out what
// was acknowledged at that time or later, which a snapshot of that time need not have.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "etcd-writer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	usage := errors.New("usage: etcd-writer write|check --endpoints URL --journal DIR")
	if len(args) == 0 {
		return usage
	}

	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	endpoints := fs.String("endpoints", "", "client URL of the cluster")
	dir := fs.String("journal", "", "directory of the journals")
	workers := fs.Int("workers", 4, "how many write at the same time")
	every := fs.Duration("every", 20*time.Millisecond, "pause between two writes of a worker")
	before := fs.Int64("before", 0, "check what was acknowledged before, in milliseconds since 1970")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}

	switch args[0] {
	case "write":
		return write(ctx, *endpoints, *dir, *workers, *every)
	case "check":
		return check(ctx, *endpoints, *dir, *before)
	default:
		return usage
	}
}

// dial connects to one member behind the Service. A member whose node has lost its power says nothing, so the
// connection is tried while it is idle, too.
func dial(ctx context.Context, endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Context:              ctx,
		Endpoints:            []string{endpoint},
		DialTimeout:          2 * time.Second,
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: time.Second,
		PermitWithoutStream:  true,
		Logger:               zap.NewNop(),
	})
}
