// Package apparmor finds out which AppArmor profiles the kernel has, and loads the default one of containers
// (apparmor.d(5), apparmor_parser(8)). It does not decide which container gets which.
package apparmor

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// DefaultProfile is the name of the profile that Default loads.
const DefaultProfile = "trivet-default"

//go:embed default.profile
var defaultProfile []byte

// loadLimit bounds the time that the parser takes for one small profile.
const loadLimit = 30 * time.Second

// Profiles are the kernel's profiles. They may be used by many goroutines.
type Profiles struct {
	// dir is AppArmor's in securityfs, parser is the name or the path of the program.
	dir, parser string

	// mu is held while a profile is loaded.
	mu sync.Mutex
}

// New returns the profiles that the kernel shows below dir, on a node /sys/kernel/security/apparmor. They are
// loaded by parser, a name to be found in PATH, or a path. Neither needs to exist.
func New(dir, parser string) *Profiles { return &Profiles{dir: dir, parser: parser} }

// Loaded reports whether the kernel has a profile of this name.
func (p *Profiles) Loaded(name string) (bool, error) {
	// The kernel's own file, a line for each profile: NAME (MODE).
	data, err := os.ReadFile(filepath.Join(p.dir, "profiles"))
	if err != nil {
		return false, fmt.Errorf("profiles of AppArmor: %w (is securityfs mounted?)", err)
	}

	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndex(line, " ("); i >= 0 && line[:i] == name {
			return true, nil
		}
	}

	return false, nil
}

// Default loads the default profile if the kernel does not have it, and returns its name. It looks each time:
// an administrator may have unloaded it (aa-teardown), or loaded another one of the same name.
func (p *Profiles) Default(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()

	loaded, err := p.Loaded(DefaultProfile)
	if err != nil || loaded {
		return DefaultProfile, err
	}
	if err := p.load(ctx, defaultProfile); err != nil {
		return "", fmt.Errorf("load AppArmor profile %s: %w", DefaultProfile, err)
	}
	if loaded, err = p.Loaded(DefaultProfile); err == nil && !loaded {
		err = fmt.Errorf("load AppArmor profile %s: after %s the kernel has none", DefaultProfile, p.parser)
	}

	return DefaultProfile, err
}

// load gives text to the parser, which keeps no copy of it in its cache.
func (p *Profiles) load(ctx context.Context, text []byte) error {
	program, err := findParser(p.parser)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()

	cmd := exec.CommandContext(ctx, program, "--replace", "--skip-cache")
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(out)), ctx.Err())
	}

	return nil
}

// findParser returns the path of the parser. It looks in /sbin, too, which the PATH of a service may not
// have.
func findParser(name string) (string, error) {
	program, err := exec.LookPath(name)
	if err != nil && !strings.Contains(name, "/") {
		if found, sbinErr := exec.LookPath(filepath.Join("/sbin", name)); sbinErr == nil {
			return found, nil
		}
	}
	return program, err
}
