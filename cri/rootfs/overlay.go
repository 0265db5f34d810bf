package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// overlay is one overlayfs mount; lower starts with the uppermost.
type overlay struct {
	lower       []string
	upper, work string // both "" for a read-only one
}

// mount uses the new mount API, where each layer is an option of its own (lowerdir+, kernel >= 6.7), so that
// their number is limited by overlayfs (500) and not by a page of text. Older kernels get one text with short
// names.
func (o overlay) mount(target string) error {
	err := o.mountByParts(target)
	if errors.Is(err, errOldKernel) {
		return o.mountByText(target)
	}
	return err
}

var errOldKernel = errors.New("the kernel does not have lowerdir+")

func (o overlay) mountByParts(target string) error {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return errors.New("the kernel has no overlayfs (modprobe overlay)")
	}
	if err != nil {
		return errOldKernel
	}
	defer unix.Close(fsfd)

	if legacy(fsfd) {
		return errOldKernel
	}
	if err := o.configure(fsfd); err != nil {
		return err
	}

	// Errors of the layers show up here at the latest.
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return fmt.Errorf("create overlay: %w%s", err, kernelLog(fsfd))
	}

	attributes := 0
	if o.upper == "" {
		attributes = unix.MOUNT_ATTR_RDONLY
	}

	mountfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return fmt.Errorf("fsmount: %w%s", err, kernelLog(fsfd))
	}
	defer unix.Close(mountfd)

	if err := unix.MoveMount(mountfd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move mount to %s: %w", target, err)
	}

	return nil
}

// configure sets the options of a new overlay.
func (o overlay) configure(fsfd int) error {
	for _, dir := range o.lower {
		err := unix.FsconfigSetString(fsfd, "lowerdir+", dir)
		if errors.Is(err, unix.EINVAL) {
			return errOldKernel
		}
		if err != nil {
			return fmt.Errorf("layer %s: %w%s", dir, err, kernelLog(fsfd))
		}
	}

	if o.upper == "" {
		return nil
	}

	if err := unix.FsconfigSetString(fsfd, "upperdir", o.upper); err != nil {
		return fmt.Errorf("writable layer %s: %w%s", o.upper, err, kernelLog(fsfd))
	}
	if err := unix.FsconfigSetString(fsfd, "workdir", o.work); err != nil {
		return fmt.Errorf("work directory %s: %w%s", o.work, err, kernelLog(fsfd))
	}

	// A container's files need not survive a power loss: its fsync costs nothing then. Older kernels do not
	// know the option.
	if err := unix.FsconfigSetFlag(fsfd, "volatile"); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("volatile: %w%s", err, kernelLog(fsfd))
	}

	return nil
}

// legacy reports whether the filesystem still takes its options as one text (overlayfs before 6.5): then
// fsconfig(2) collects all options and only the creation fails, with a message in the kernel's log. A
// filesystem that knows its options refuses an unknown one at once.
func legacy(fsfd int) bool {
	if unix.FsconfigSetFlag(fsfd, "no-such-option") == nil {
		return true
	}

	// What it wrote about the refusal must not be part of a later error.
	_ = kernelLog(fsfd)
	return false
}

// kernelLog returns what the kernel wrote to the log of the mount (fsopen(2)): the reason for an EINVAL.
func kernelLog(fsfd int) string {
	var lines []string
	buf := make([]byte, 1024)
	for range 16 {
		n, err := unix.Read(fsfd, buf)
		if err != nil || n <= 0 {
			break
		}

		lines = append(lines, strings.TrimSpace(string(buf[:n])))
	}

	if len(lines) == 0 {
		return ""
	}

	return " (" + strings.Join(lines, "; ") + ")"
}

// mountByText passes each layer as /proc/self/fd/N, so that some 200 of them fit into the page that mount(2)
// takes.
func (o overlay) mountByText(target string) error {
	var names []string
	for _, dir := range o.lower {
		f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer f.Close()

		names = append(names, fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	}

	options, flags := "lowerdir="+strings.Join(names, ":"), uintptr(unix.MS_RDONLY)
	if o.upper != "" {
		options, flags = options+",upperdir="+o.upper+",workdir="+o.work, 0
	}
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("%d layers are too many for this kernel (6.7 and later take 500)", len(o.lower))
	}
	if err := unix.Mount("overlay", target, "overlay", flags, options); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}

	return nil
}
