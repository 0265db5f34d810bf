package cgroupdriver

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/trivet-node/trivet/internal/systemd"
)

// RemoveScope has systemd stop and forget the scope of a container that the OCI runtime has deleted, or never
// finished. As a rule there is none, and systemd is not asked: a runtime stops the scope that it started,
// unless it was killed before it had written its state.
func (d Driver) RemoveScope(ctx context.Context, id string) error {
	name := scopeName(id)
	if !d.Systemd || !systemd.Transient(name) {
		return nil
	}
	if err := systemctl(ctx, "stop", name); err != nil && systemd.Transient(name) {
		return err
	}

	// A scope that failed is kept. One that did not is forgotten by now, which is an error here.
	if err := systemctl(ctx, "reset-failed", name); err != nil && systemd.Transient(name) {
		return err
	}

	return nil
}

// ResetFailedScopes has systemd forget scopes of containers that have failed, if there are scopes of any
// container that is not known. An earlier version, or a runtime that was killed with its server, leaves such
// ones.
func (d Driver) ResetFailedScopes(ctx context.Context, known func(id string) bool) error {
	if !d.Systemd {
		return nil
	}

	units, err := systemd.TransientUnits()
	if err != nil {
		return err
	}

	for _, unit := range units {
		name, isScope := strings.CutSuffix(unit, scopeSuffix)
		id, isOurs := strings.CutPrefix(name, scopePrefix)
		if isScope && isOurs && !known(id) {
			return systemctl(ctx, "reset-failed", scopePrefix+"*"+scopeSuffix)
		}
	}

	return nil
}

// systemctl calls systemd by its own program: the calls are so rare that a D-Bus client would only make the
// server bigger.
func systemctl(ctx context.Context, verb, unit string) error {
	cmd := exec.CommandContext(ctx, "systemctl", "--quiet", "--no-ask-password", verb, "--", unit)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s %s: %w: %s", verb, unit, err, strings.TrimSpace(string(out)))
	}
	return nil
}
