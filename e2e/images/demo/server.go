package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

const maxValue = 1 << 20

// prepare makes the directory of the values and counts how often the volume was given to a pod.
func prepare(log *slog.Logger, data string) error {
	if err := os.MkdirAll(filepath.Join(data, "kv"), 0o755); err != nil {
		return err
	}
	starts := 0
	if text, err := os.ReadFile(filepath.Join(data, "starts")); err == nil {
		starts, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	starts++
	log.Info("volume is ready", "data", data, "starts", starts)
	return save(filepath.Join(data, "starts"), strings.NewReader(strconv.Itoa(starts)+"\n"))
}

// save puts content at path so that it survives a power cut once this returns.
func save(path string, content io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()

	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}

	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()

	return dir.Sync()
}

var key = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func serve(ctx context.Context, log *slog.Logger, address, data string) error {
	if _, err := os.Stat(filepath.Join(data, "kv")); err != nil {
		return fmt.Errorf("the volume was not prepared by demo init: %w", err)
	}

	log.Info("serving", "address", address, "data", data)
	return listen(ctx, address, handler(log, data))
}

// handler serves the values in the directory kv of the volume.
func handler(log *slog.Logger, data string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, version) })
	mux.HandleFunc("GET /info",
		func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(info(data)) })
	mux.HandleFunc("GET /kv/{key}", func(w http.ResponseWriter, r *http.Request) { get(w, r, data) })
	mux.HandleFunc("PUT /kv/{key}", func(w http.ResponseWriter, r *http.Request) { put(w, r, log, data) })
	return mux
}

// info is what the pod was given: it shows that configuration, secret and volume arrived.
func info(data string) map[string]any {
	host, _ := os.Hostname()
	entries, _ := os.ReadDir(filepath.Join(data, "kv"))
	starts, _ := os.ReadFile(filepath.Join(data, "starts"))
	greeting, _ := os.ReadFile("/config/greeting")
	_, err := os.Stat("/secret/password")
	return map[string]any{
		"version":  version,
		"host":     host,
		"keys":     len(entries),
		"starts":   strings.TrimSpace(string(starts)),
		"greeting": strings.TrimSpace(string(greeting)),
		"secret":   err == nil,
		"node":     os.Getenv("NODE_NAME"),
	}
}

func get(w http.ResponseWriter, r *http.Request, data string) {
	k := r.PathValue("key")
	if !key.MatchString(k) {
		http.Error(w, "not a key", http.StatusBadRequest)
		return
	}

	value, err := os.ReadFile(filepath.Join(data, "kv", k))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, "no value for "+k, http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		_, _ = w.Write(value)
	}
}

func put(w http.ResponseWriter, r *http.Request, log *slog.Logger, data string) {
	k := r.PathValue("key")
	if !key.MatchString(k) {
		http.Error(w, "not a key", http.StatusBadRequest)
		return
	}

	if err := save(filepath.Join(data, "kv", k), http.MaxBytesReader(w, r.Body, maxValue)); err != nil {
		log.Error("value is not stored", "key", k, "err", err)
		http.Error(w, err.Error(), http.StatusInsufficientStorage)
		return
	}

	log.Info("value is stored", "key", k)
	w.WriteHeader(http.StatusCreated)
}
