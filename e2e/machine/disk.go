package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/e2e/loopdev"
	"github.com/trivet-node/trivet/internal/retry"
)

// Disk is an ext4 file system of a machine's own, on a loop device, for directories that are on the host's
// otherwise: what fills it is not in anybody else's way.
type Disk struct {
	Name   string   // it is kept in the file disks/NAME.img of the machine's directory
	Size   int64    // bytes
	Inodes int64    // 0: as many as mkfs.ext4 chooses
	Dirs   []string // directories of the machine that are on it; they survive a reboot
}

func (d Disk) image(dir string) string { return filepath.Join(dir, "disks", d.Name+".img") }

// root is where the whole file system is mounted, inside the machine only.
func (d Disk) root(dir string) string { return filepath.Join(dir, "disks", d.Name) }

// make creates the file system, sparse, unless it is there from an earlier boot.
func (d Disk) make(ctx context.Context, dir string) error {
	image := d.image(dir)
	if _, err := os.Stat(image); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(d.root(dir), 0o755); err != nil {
		return err
	}

	// Under another name until it is whole.
	partial := image + ".new"
	if err := os.WriteFile(partial, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(partial, d.Size); err != nil {
		return err
	}

	// Nothing is reserved for root: all of the space is what a node agent sees as available. It needs no
	// journal, since the kernel that writes it outlives the machine.
	args := []string{"-q", "-F", "-m", "0", "-O", "^has_journal"}
	if d.Inodes > 0 {
		args = append(args, "-N", strconv.FormatInt(d.Inodes, 10))
	}

	cmd := exec.CommandContext(ctx, "mkfs.ext4", append(args, partial)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4 %s: %w: %s", partial, err, strings.TrimSpace(string(out)))
	}

	return os.Rename(partial, image)
}

// detachLimit bounds how long the kernel may take to unmount the disk of a machine that was halted.
const detachLimit = 30 * time.Second

// attach returns the device of the disk; the caller closes it when the machine has mounted it. It is attached
// outside of the machine, where the file system that its file is on may not be written to.
func (d Disk) attach(ctx context.Context, dir string) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, detachLimit, errors.New("the last boot's device is busy"))
	defer cancel()

	// Mounted by two devices, it would be destroyed.
	for range retry.Every(ctx, 10*time.Millisecond) {
		device, err := loopdev.Of(d.image(dir))
		if err != nil {
			return nil, err
		}
		if device == "" {
			return loopdev.Attach(d.image(dir))
		}
	}

	return nil, fmt.Errorf("attach %s: %w", d.image(dir), context.Cause(ctx))
}

// attachAll makes and attaches the disks of the machine in dir. The caller closes the devices.
func attachAll(ctx context.Context, disks []Disk, dir string) ([]*os.File, error) {
	var devices []*os.File
	for _, d := range disks {
		if err := d.make(ctx, dir); err != nil {
			closeAll(devices)
			return nil, err
		}

		device, err := d.attach(ctx, dir)
		if err != nil {
			closeAll(devices)
			return nil, err
		}

		devices = append(devices, device)
	}

	return devices, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// mount mounts the file system in this mount namespace. When that ends, the device is detached.
func (d Disk) mount(dir string) error {
	device, err := loopdev.Of(d.image(dir))
	if err != nil {
		return err
	}

	// Deleted files give their space back to the host.
	if err := unix.Mount(device, d.root(dir), "ext4", unix.MS_NOATIME, "discard"); err != nil {
		return fmt.Errorf("mount %s on %s: %w", d.image(dir), device, err)
	}

	return nil
}

// diskDirs are the directories on all disks.
func diskDirs(disks []Disk) []string {
	var all []string
	for _, d := range disks {
		all = append(all, d.Dirs...)
	}
	return all
}
