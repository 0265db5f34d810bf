package inotify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

var silent = slog.New(slog.DiscardHandler)

func TestFilesAreLookedAtUntilThereIsAWatcher(t *testing.T) {
	attempts, looks := 0, 0
	watcher, err := open(t.Context(), silent, func() { looks++ }, time.Millisecond,
		func() (*fsnotify.Watcher, error) {
			attempts++
			if attempts <= 3 {
				return nil, fmt.Errorf("couldn't initialize inotify: %w", syscall.EMFILE)
			}
			return new(fsnotify.Watcher), nil
		})
	if err != nil || watcher == nil || looks != 3 {
		t.Errorf("watcher %v after %d looks, %v", watcher, looks, err)
	}
}

func TestWaitingForAWatcherEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := open(ctx, silent, cancel, time.Hour, func() (*fsnotify.Watcher, error) {
		return nil, syscall.EMFILE
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestKernelWithoutInotifyIsAnError(t *testing.T) {
	_, err := open(t.Context(), silent, func() { t.Error("looked") }, time.Hour,
		func() (*fsnotify.Watcher, error) { return nil, syscall.ENOSYS })
	if !errors.Is(err, syscall.ENOSYS) {
		t.Errorf("error %v", err)
	}
}
