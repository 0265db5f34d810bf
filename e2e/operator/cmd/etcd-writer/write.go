package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// patience is how long a write may take. Whether one that took longer is there is unknown, and both is right.
const patience = 2 * time.Second

// prefix of all keys.
const prefix = "written/"

func key(worker, seq int) string { return fmt.Sprintf("%s%d/%012d", prefix, worker, seq) }

// write runs the workers until the context ends or one has no journal.
func write(ctx context.Context, endpoint, dir string, workers int, every time.Duration) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for n := range workers {
		all.Go(func() {
			if err := work(ctx, endpoint, dir, n, every); err != nil {
				cancel(err)
			}
		})
	}

	all.Wait()
	return context.Cause(ctx)
}

// work writes one key after the other. A worker that starts again goes on after the last one it has noted.
func work(ctx context.Context, endpoint, dir string, n int, every time.Duration) error {
	client, err := dial(ctx, endpoint)
	if err != nil {
		return err
	}
	defer client.Close()

	j, err := openJournal(dir, n)
	if err != nil {
		return err
	}
	defer j.Close()

	tick := time.NewTicker(every)
	defer tick.Stop()
	for seq := j.last + 1; ; seq++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}

		revision, err := put(ctx, client, n, seq)
		if err != nil {
			continue
		}
		if err := j.note(entry{seq: seq, revision: revision, at: time.Now().UnixMilli()}); err != nil {
			return err
		}
	}
}

func put(ctx context.Context, client *clientv3.Client, worker, seq int) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	answer, err := client.Put(ctx, key(worker, seq), fmt.Sprint(seq))
	if err != nil {
		return 0, err
	}
	return answer.Header.Revision, nil
}
