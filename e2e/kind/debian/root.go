package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Root is a root file system of Debian.
type Root struct {
	Suite    string // bookworm
	Mirror   string // address of the archive; "": that of the host's apt
	Packages []string

	// Tools is a directory in which debootstrap is unpacked, or will be. Archives keeps what was downloaded,
	// for the next time.
	Tools    string
	Archives string

	// Out receives what debootstrap says, line by line.
	Out io.Writer
}

// Write makes the root in a directory of its own beside file and writes it as a tar archive to file, unless
// that is there.
func (r Root) Write(ctx context.Context, file string) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	if r.Mirror == "" {
		mirror, err := Mirror(ctx, r.Suite)
		if err != nil {
			return err
		}

		r.Mirror = mirror
	}

	// debootstrap downloads by the one and checks by the other.
	for _, name := range []string{"wget", "gpgv"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("debootstrap needs the package %s: %w", name, err)
		}
	}

	if err := Unpack(ctx, r.Tools, []string{"debootstrap"}); err != nil {
		return err
	}
	if err := os.MkdirAll(r.Archives, 0o755); err != nil {
		return err
	}

	// A call that was cut off may have left one.
	root := file + ".root"
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	defer os.RemoveAll(root)

	if err := r.bootstrap(ctx, root); err != nil {
		return err
	}
	if err := emptyCaches(root); err != nil {
		return err
	}

	pack := exec.CommandContext(ctx, "tar", "--numeric-owner", "-C", root, "-cf", file+".new", ".")
	if err := run(pack); err != nil {
		return errors.Join(err, os.Remove(file+".new"))
	}

	return os.Rename(file+".new", file)
}

// bootstrap runs debootstrap with mounts and processes of its own, which end with it, also when it is killed.
func (r Root) bootstrap(ctx context.Context, root string) error {
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation=private",
		"--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"sh", filepath.Join(r.Tools, "usr/sbin/debootstrap"),
		"--variant=minbase",
		"--cache-dir="+r.Archives,
		"--include="+strings.Join(r.Packages, ","),
		r.Suite, root, r.Mirror,
	)
	cmd.Env = append(os.Environ(), "DEBOOTSTRAP_DIR="+filepath.Join(r.Tools, "usr/share/debootstrap"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	var said strings.Builder
	out := io.MultiWriter(r.Out, &said)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("debootstrap %s: %w: %s", r.Suite, err, tail(said.String()))
	}

	return nil
}

// emptyCaches removes what apt has kept in a root.
func emptyCaches(root string) error {
	for _, pattern := range []string{"var/cache/apt/archives/*.deb", "var/lib/apt/lists/*", "var/log/*.log"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}

		for _, f := range files {
			if err := os.RemoveAll(f); err != nil {
				return err
			}
		}
	}
	return nil
}
