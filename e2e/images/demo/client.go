package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// sidecar looks at the server every second, logs changes, and serves the newest state.
func sidecar(ctx context.Context, log *slog.Logger, address, url string) error {
	look := func() string {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()

		text, err := fetch(ctx, http.MethodGet, url+"/info", "")
		if err != nil {
			return "server is down"
		}

		return strings.TrimSpace(text)
	}

	go func() {
		last := ""
		for range retry.Every(ctx, time.Second) {
			if now := look(); now != last {
				log.Info("server changed", "state", now)
				last = now
			}
		}
	}()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /state",
		func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(look()) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return listen(ctx, address, mux)
}

// client writes values and reads each of them back; it waits up to a minute for the server to answer at all.
func client(ctx context.Context, log *slog.Logger, url string, count int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	run := time.Now().Unix()
	for i := range count {
		k, want := fmt.Sprintf("job-%d", i), fmt.Sprintf("value %d of run %d", i, run)
		if err := untilWritten(ctx, log, url+"/kv/"+k, want); err != nil {
			return fmt.Errorf("write %s: %w", k, err)
		}

		got, err := fetch(ctx, http.MethodGet, url+"/kv/"+k, "")
		if err != nil {
			return fmt.Errorf("read %s: %w", k, err)
		}
		if got != want {
			return fmt.Errorf("%s reads %q, want %q", k, got, want)
		}
	}

	log.Info("all values were written and read back", "url", url, "count", count)
	return nil
}

// untilWritten writes a value, again if the server does not answer.
func untilWritten(ctx context.Context, log *slog.Logger, url, value string) error {
	backoff := retry.Backoff{First: 500 * time.Millisecond, Max: 500 * time.Millisecond}
	return retry.Until(ctx, backoff, func(ctx context.Context) error {
		_, err := fetch(ctx, http.MethodPut, url, value)
		if err != nil {
			log.Warn("server does not answer yet", "url", url, "err", err)
		}
		return err
	})
}

func fetch(ctx context.Context, method, url, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()

	data, err := io.ReadAll(io.LimitReader(resp.Body, maxValue))
	if err != nil {
		return "", err
	}
	if resp.StatusCode >= 300 {
		return "", fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(data)))
	}

	return string(data), nil
}
