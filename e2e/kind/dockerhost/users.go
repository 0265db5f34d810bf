package dockerhost

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/trivet-node/trivet/e2e/leaks"
)

// Users is the Docker that the user has. It is not started, and never ended.
type Users struct{}

// Fetch does nothing.
func (Users) Fetch(context.Context) error { return nil }

// Up checks that the daemon answers.
func (Users) Up(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "docker", "version", "--format={{.Server.Version}}").CombinedOutput()
	if err != nil {
		return fmt.Errorf("docker version: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Running reports true: only a call can say.
func (Users) Running() bool { return true }

// Enter does nothing: the containers' ports are on this host.
func (Users) Enter() error { return nil }

// Environ has no variables.
func (Users) Environ() []string { return nil }

// Reboot returns an error: the host is the user's.
func (Users) Reboot(context.Context) error {
	return errors.New("the host of your Docker is yours to reboot")
}

// Down does nothing.
func (Users) Down(context.Context) error { return nil }

// Leaks finds nothing.
func (Users) Leaks() ([]leaks.Leak, error) { return nil, nil }
