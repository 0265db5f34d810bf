package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
)

// errDismissed ends a server whose monitor was dismissed.
var errDismissed = errors.New("trivet-monitor was dismissed")

// awaitDismissal returns errDismissed when the monitor was dismissed, nil when ctx ends.
func awaitDismissal(ctx context.Context, mon *monitor.Client, log *slog.Logger) error {
	select {
	case <-mon.Dismissed():
		log.Info("shut down: no pod is left")
		return errDismissed
	case <-ctx.Done():
		return nil
	}
}

// shutdownLimit bounds the wait for the two processes.
const shutdownLimit = 30 * time.Second

// shutdown ends trivet-monitor, and trivet-cri with it, if no pod is left. Repeating it is harmless.
func shutdown(ctx context.Context, cfg config.Config) error {
	const advice = "remove what is left first: crictl rmp --all --force"
	left, err := filepath.Glob(filepath.Join(cfg.StateDir, "sandboxes", "records", "*.json"))
	if err != nil {
		return fmt.Errorf("look for pods: %w", err)
	}

	if len(left) > 0 {
		what := fmt.Sprintf("%d pods are left (records such as %s)", len(left), left[0])
		return &program.CantRunError{What: what, Do: advice}
	}

	late := fmt.Errorf("no answer within %s", shutdownLimit)
	ctx, cancel := context.WithTimeoutCause(ctx, shutdownLimit, late)
	defer cancel()

	if err := monitor.Dismiss(ctx, cfg.Monitor.Socket); err != nil {
		return &program.CantRunError{What: err.Error(), Do: advice}
	}

	return awaitSilence(ctx, cfg.Socket)
}

// silencePoll is how often the socket is tried.
const silencePoll = 20 * time.Millisecond

// awaitSilence waits until nobody answers on the socket.
func awaitSilence(ctx context.Context, socket string) error {
	for range retry.Every(ctx, silencePoll) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return nil
		}
		conn.Close()
	}
	return fmt.Errorf("trivet-cri still answers on %s: %w", socket, context.Cause(ctx))
}
