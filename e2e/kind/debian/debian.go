// Package debian takes from Debian's archive, through the host's apt, what a kind cluster is made of:
// packages that are unpacked into a directory without being installed, and a root file system in which
// packages are installed.
package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Unpack downloads packages and unpacks them over each other into dir, unless that is there. What they depend
// on is not followed.
func Unpack(ctx context.Context, dir string, packages []string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	// A call that was cut off may have left one.
	work := dir + ".new"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer os.RemoveAll(work)

	archives := filepath.Join(work, "archives")
	if err := os.MkdirAll(archives, 0o755); err != nil {
		return err
	}
	if err := download(ctx, archives, packages); err != nil {
		return err
	}

	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil || len(debs) < len(packages) {
		return errors.Join(err, fmt.Errorf("apt-get download left %d of %v", len(debs), packages))
	}

	root := filepath.Join(work, "root")
	for _, deb := range debs {
		if err := run(exec.CommandContext(ctx, "dpkg", "-x", deb, root)); err != nil {
			return err
		}
	}

	return os.Rename(root, dir)
}

// download downloads packages. There may be no package lists yet, or old ones, that name a version which the
// archive does not have any more.
func download(ctx context.Context, dir string, packages []string) error {
	get := func() error {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "download"}, packages...)...)
		cmd.Dir = dir
		return run(cmd)
	}

	err := get()
	if err == nil {
		return nil
	}
	if again := run(exec.CommandContext(ctx, "apt-get", "-q", "update")); again != nil {
		return errors.Join(err, again)
	}
	return get()
}

// run runs a command; its error has the last lines of what it said.
func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, tail(string(out)))
	}
	return nil
}

// tail is the last lines of an output.
func tail(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// Mirror is the address of the archive from which the host's apt gets the suite, or another one of Debian's.
func Mirror(ctx context.Context, suite string) (string, error) {
	format := "--format=$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)"
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", format, "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("apt-get indextargets: %w", err)
	}

	mirror := mirrorOf(string(out), suite)
	if mirror == "" {
		return "", errors.New("apt knows no archive of Debian: say where one is by --mirror")
	}
	return mirror, nil
}

// mirrorOf chooses from lines "ORIGIN CODENAME COMPONENT URI".
func mirrorOf(targets, suite string) string {
	var found []string
	for line := range strings.Lines(targets) {
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[0] != "Debian" || fields[2] != "main" {
			continue
		}

		// The archives of updates, security and backports have other suites.
		if strings.Contains(fields[1], "-") {
			continue
		}
		if fields[1] == suite {
			return fields[3]
		}

		found = append(found, fields[3])
	}

	if len(found) == 0 {
		return ""
	}
	return slices.Min(found)
}
