// Package apparmor knows which AppArmor profiles the kernel has, and loads the one that containers get
// which ask for none of their own (apparmor.d(5), apparmor_parser(8)). It does not say who gets which.
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

// loadLimit bounds what the parser takes for one small profile.
const loadLimit = 30 * time.Second

// Profiles are those of the kernel.
type Profiles struct {
	dir    string // of AppArmor in securityfs
	parser string // name or path of the program

	mu sync.Mutex // one load at a time
}

// New finds the kernel's profiles below dir, /sys/kernel/security/apparmor on any node, and loads with
// parser, a name to be found in PATH or a path. Neither needs to be there.
func New(dir, parser string) *Profiles { return &Profiles{dir: dir, parser: parser} }

// Loaded reports whether the kernel has a profile.
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

// Default returns the name of the default profile, which the kernel has then. It is looked for each time:
// an administrator can unload it (aa-teardown), or have loaded another one of the same name.
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

// findParser looks in /sbin, too, which the PATH of a service may lack.
func findParser(name string) (string, error) {
	program, err := exec.LookPath(name)
	if err != nil && !strings.Contains(name, "/") {
		if found, sbinErr := exec.LookPath(filepath.Join("/sbin", name)); sbinErr == nil {
			return found, nil
		}
	}
	return program, err
}
