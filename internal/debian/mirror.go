// Package debian takes programs out of Debian's packages, for any architecture and without installing them:
// with the shared libraries that they need, the names and versions of the packages that they are from, and
// the copyright files that have to go with them.
package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Mirror is where packages of one architecture are fetched from: what apt of this machine is configured with.
// It keeps what it has fetched.
type Mirror struct {
	arch string
	dir  string
	host bool
}

// Host is for programs that run with this machine's C library, of its architecture: the package lists are the
// machine's, libc6 is not fetched, and libraries that no package has are the machine's. Packages are kept in
// dir.
func Host(arch, dir string) *Mirror { return &Mirror{arch: arch, dir: dir, host: true} }

// For is for an architecture, named as Go does, whatever this machine's is. Everything is taken from
// packages, so that the result depends on their versions alone. Package lists and packages are kept in dir.
func For(arch, dir string) *Mirror { return &Mirror{arch: arch, dir: dir} }

// multiarch are Debian's names of directories of an architecture, by Go's names of architectures. Debian
// names the architectures themselves as Go does.
var multiarch = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

// Unpack fetches packages and the libraries that they depend on, and unpacks each into a directory of its
// own. None is installed: busybox, for one, would take the place of busybox-static.
func (m *Mirror) Unpack(ctx context.Context, names ...string) (*Tree, error) {
	if multiarch[m.arch] == "" {
		return nil, fmt.Errorf("packages of the architecture %q: only amd64 and arm64 are known", m.arch)
	}
	if err := m.prepare(ctx); err != nil {
		return nil, err
	}

	packages, err := m.fetch(ctx, names)
	if err != nil {
		// There may be no package lists yet, or old ones, that name a version which the mirror does not have
		// any more.
		again := m.apt(ctx, "apt-get", "-q", "update")
		if again == nil {
			packages, again = m.fetch(ctx, names)
		}
		if again != nil {
			return nil, errors.Join(err, again)
		}
	}

	tree := &Tree{arch: m.arch, host: m.host}
	for _, p := range packages {
		unpacked, err := m.unpack(ctx, p)
		if err != nil {
			return nil, err
		}

		tree.packages = append(tree.packages, unpacked)
	}

	return tree, nil
}

// prepare makes the directories that apt wants, and for lists of our own brings them up to date: a mirror
// says in one short answer that nothing has changed. The directory is called by its path without links from
// then on, as the files are that are found below it.
func (m *Mirror) prepare(ctx context.Context) (err error) {
	dirs := []string{m.debs()}
	if !m.host {
		dirs = append(dirs, filepath.Join(m.dir, "lists/partial"), filepath.Join(m.dir, "cache/partial"))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}

	if m.dir, err = filepath.EvalSymlinks(m.dir); err != nil || m.host {
		return err
	}

	// apt wants to know what is installed: nothing.
	if err := os.WriteFile(m.status(), nil, 0o644); err != nil {
		return err
	}

	return m.apt(ctx, "apt-get", "-q", "update")
}

func (m *Mirror) debs() string   { return filepath.Join(m.dir, "debs") }
func (m *Mirror) status() string { return filepath.Join(m.dir, "status") }

// options have apt keep everything of another architecture apart from what the machine has installed.
func (m *Mirror) options() []string {
	if m.host {
		return nil
	}
	return []string{
		"-o", "APT::Architecture=" + m.arch,
		"-o", "APT::Architectures::=" + m.arch,
		"-o", "APT::Sandbox::User=root",
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"-o", "Dir::State=" + m.dir,
		"-o", "Dir::State::lists=" + filepath.Join(m.dir, "lists"),
		"-o", "Dir::State::status=" + m.status(),
		"-o", "Dir::Cache=" + filepath.Join(m.dir, "cache"),
		"-o", "Dir::Cache::archives=" + filepath.Join(m.dir, "cache"),
	}
}

// apt runs a program of apt in the directory of packages.
func (m *Mirror) apt(ctx context.Context, program string, args ...string) error {
	return run(ctx, m.debs(), program, append(m.options(), args...)...)
}

// output is what a program of apt prints. It does not run in the directory of packages: apt leaves out what
// is there.
func (m *Mirror) output(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, append(m.options(), args...)...)
	cmd.Dir = m.dir

	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", program, args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

// fetch downloads the files of packages and of the libraries that they depend on.
func (m *Mirror) fetch(ctx context.Context, names []string) ([]download, error) {
	depends := []string{
		"depends", "--recurse", "--no-pre-depends", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances",
	}
	closure, err := m.output(ctx, "apt-cache", append(depends, names...)...)
	if err != nil {
		return nil, err
	}

	wanted := slices.Clone(names)
	for line := range strings.Lines(closure) {
		name := strings.TrimSuffix(line, "\n")
		if m.isLibrary(name) && !slices.Contains(wanted, name) {
			wanted = append(wanted, name)
		}
	}

	uris, err := m.output(ctx, "apt-get", append([]string{"download", "--print-uris"}, wanted...)...)
	if err != nil {
		return nil, err
	}

	downloads, err := parseURIs(uris)
	if err != nil {
		return nil, err
	}
	if len(downloads) != len(wanted) {
		return nil, fmt.Errorf("apt has %d of the %d packages %v", len(downloads), len(wanted), wanted)
	}

	return downloads, m.download(ctx, wanted, downloads)
}

// isLibrary reports whether a line of the dependencies is a package of shared libraries. What gcc-N-base has
// is the copyright file of those that gcc brings. Those of languages are large, and are for scripts beside
// the programs.
func (m *Mirror) isLibrary(name string) bool {
	begins := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	if strings.ContainsAny(name, " :<|") || begins("libpython") || begins("libperl") {
		return false
	}
	if m.host && begins("libc6") {
		return false
	}
	return begins("lib") || name == "zlib1g" || begins("gcc-") && strings.HasSuffix(name, "-base")
}

func run(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		said := strings.TrimSpace(string(out))
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, said)
	}
	return nil
}
