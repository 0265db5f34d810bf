package localvolume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	mountutils "k8s.io/mount-utils"
	"k8s.io/utils/exec"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

// stageTime bounds blkid, fsck, mkfs and mount together. fsck of a large file system takes the longest.
const stageTime = 30 * time.Minute

// growTime bounds resize2fs and its like, which hold the volumes of a pod meanwhile.
const growTime = 2 * time.Minute

// stage mounts the device of a volume on point, which it makes. A device that holds nothing gets a file
// system before; a file system is checked, and what can be repaired without a loss is. It is kubelet's
// library that does so: nobody's data is to be formatted because two agents disagree on what is empty.
func stage(ctx context.Context, v Volume, point string) error {
	ctx, cancel := context.WithTimeout(ctx, stageTime)
	defer cancel()

	// The program mkfs.TYPE is run. With a slash it would be one by a path.
	if strings.ContainsRune(v.FSType, '/') {
		return fmt.Errorf("%q is no type of a file system", v.FSType)
	}

	device := &mountutils.SafeFormatAndMount{
		Interface: mounter{ctx: ctx},
		Exec:      bounded{Interface: exec.New(), ctx: ctx},
	}
	if v.ReadOnly {
		if err := checkFormatted(device, v.Path); err != nil {
			return err
		}
	}

	if err := os.MkdirAll(point, 0o750); err != nil {
		return fmt.Errorf("make %s: %w", point, err)
	}

	if err := device.FormatAndMount(v.Path, point, v.FSType, slices.Clone(v.Options)); err != nil {
		return errors.Join(err, remove(point))
	}

	return nil
}

// Grow makes the file system on the device of a volume that is mounted as large as the device is, which an
// administrator has made larger. A directory is as large as its disk.
func (m *Mounter) Grow(ctx context.Context, v Volume) error {
	unlock, err := m.locks.Lock(ctx, v.Name)
	if err != nil {
		return fmt.Errorf("grow local volume %q: %w", v.Name, err)
	}
	defer unlock()

	info, err := os.Stat(v.Path)
	switch {
	case err != nil:
		return fmt.Errorf("grow local volume %q: %w", v.Name, err)
	case info.IsDir():
		return nil
	}
	point := m.point(v.Name)
	if err := checkDevice(point, info); err != nil {
		return fmt.Errorf("grow local volume %q: %w", v.Name, err)
	}

	ctx, cancel := context.WithTimeout(ctx, growTime)
	defer cancel()

	tool := mountutils.NewResizeFs(bounded{Interface: exec.New(), ctx: ctx})
	if _, err := tool.Resize(v.Path, point); err != nil {
		return fmt.Errorf("grow local volume %q on %s: %w", v.Name, v.Path, err)
	}

	return nil
}

// checkFormatted refuses a device without a file system.
func checkFormatted(device *mountutils.SafeFormatAndMount, path string) error {
	format, err := device.GetDiskFormat(path)
	if err == nil && format == "" {
		err = fmt.Errorf("%s has no file system, and is to be mounted read-only", path)
	}
	return err
}

// checkDevice refuses what is mounted on point if it is not the device of the file: a volume of that name was
// another device before, which pods still use.
func checkDevice(point string, device fs.FileInfo) error {
	mounted, err := mountedDevice(point)
	if err != nil {
		return err
	}

	stat, ok := device.Sys().(*syscall.Stat_t)
	if ok && mounted != stat.Rdev {
		return fmt.Errorf("device %d:%d is mounted on %s, and not %s", unix.Major(mounted),
			unix.Minor(mounted), point, device.Name())
	}

	return nil
}

// mountedDevice is the number of the device whose file system is mounted on point. The files of btrfs have
// that of no device, so that the table of mounts has to say where it is.
func mountedDevice(point string) (uint64, error) {
	var mounted unix.Stat_t
	if err := unix.Stat(point, &mounted); err != nil {
		return 0, fmt.Errorf("stat %s: %w", point, err)
	}
	if unix.Major(mounted.Dev) != 0 {
		return mounted.Dev, nil
	}

	path, err := filepath.EvalSymlinks(point)
	if err != nil {
		return 0, err
	}
	table, err := mountinfo.Self()
	if err != nil {
		return 0, err
	}

	for _, m := range slices.Backward(table) {
		if m.Point != path {
			continue
		}

		var source unix.Stat_t
		if err := unix.Stat(m.Source, &source); err != nil {
			return 0, fmt.Errorf("stat %s, which is mounted on %s: %w", m.Source, point, err)
		}
		return source.Rdev, nil
	}

	return mounted.Dev, nil
}

// bounded runs programs until its context ends.
type bounded struct {
	exec.Interface
	ctx context.Context
}

func (b bounded) Command(program string, args ...string) exec.Cmd {
	return b.CommandContext(b.ctx, program, args...)
}

// mounter mounts by mount(8), which knows the options. It does no more of the interface than FormatAndMount
// calls.
type mounter struct {
	mountutils.Interface
	ctx context.Context
}

func (m mounter) MountSensitive(source, target, fsType string, options, _ []string) error {
	args := []string{"-t", fsType, "-o", strings.Join(options, ","), "--", source, target}
	output, err := exec.New().CommandContext(m.ctx, "mount", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount %s on %s as %s with options %q: %w: %s",
			source, target, fsType, options, err, brief(output))
	}

	return nil
}

// brief is the beginning of what a program has written, on one line.
func brief(output []byte) string {
	const most = 1 << 10
	text := strings.ToValidUTF8(string(output[:min(len(output), most)]), "?")
	return strings.Join(strings.Fields(text), " ")
}
