package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// verdict is what check prints.
type verdict struct {
	Acknowledged int `json:"acknowledged"`
	Lost         int `json:"lost"`

	// InDoubt were written without an acknowledgement.
	InDoubt int `json:"inDoubt"`

	// Backwards are acknowledgements of a revision that the worker has seen before.
	Backwards int `json:"backwards"`

	// LongestPause is the longest time, in milliseconds, in which no write was acknowledged.
	LongestPause int64 `json:"longestPauseMillis"`
}

// check compares the journals with the cluster.
func check(ctx context.Context, endpoint, dir string, before int64) error {
	journals, err := readAll(dir, before)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	there, err := keys(ctx, endpoint)
	if err != nil {
		return err
	}

	v := judge(journals, there)
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		return err
	}
	if v.Lost > 0 || v.Backwards > 0 {
		return fmt.Errorf("of %d acknowledged writes %d are lost, and revisions went back %d times",
			v.Acknowledged, v.Lost, v.Backwards)
	}

	return nil
}

// readAll reads the journals, one for each worker.
func readAll(dir string, before int64) ([][]entry, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "worker-*"))
	if err != nil {
		return nil, err
	}

	var journals [][]entry
	for n := range paths {
		entries, err := readJournal(journalPath(dir, n))
		if err != nil {
			return nil, err
		}
		journals = append(journals, slices.DeleteFunc(entries, func(e entry) bool {
			return before > 0 && e.at >= before
		}))
	}

	if len(journals) == 0 {
		return nil, errors.New("there is no journal in " + dir)
	}
	return journals, nil
}

// keys are all that were written, read page by page.
func keys(ctx context.Context, endpoint string) (map[string]bool, error) {
	client, err := dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	defer client.Close()

	const page = 5000
	there := map[string]bool{}
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		answer, err := client.Get(ctx, from,
			clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithKeysOnly())
		if err != nil {
			return nil, fmt.Errorf("read what was written: %w", err)
		}

		for _, kv := range answer.Kvs {
			there[string(kv.Key)] = true
			from = string(kv.Key) + "\x00"
		}
		if !answer.More {
			return there, nil
		}
	}
}

func judge(journals [][]entry, there map[string]bool) verdict {
	var v verdict
	var all []entry
	for worker, entries := range journals {
		var last entry
		for _, e := range entries {
			v.Acknowledged++
			if !there[key(worker, e.seq)] {
				v.Lost++
			}
			if e.revision <= last.revision {
				v.Backwards++
			}
			last = e
		}
		all = append(all, entries...)
	}

	v.InDoubt = max(0, len(there)-(v.Acknowledged-v.Lost))
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.at, b.at) })
	for i := 1; i < len(all); i++ {
		v.LongestPause = max(v.LongestPause, all[i].at-all[i-1].at)
	}

	return v
}
