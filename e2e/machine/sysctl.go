package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// shadowed are the sysctls which belong to the whole kernel and which kubelet or systemd write when they
// start. The machine has files of its own in their place, so that the host keeps its values.
var shadowed = []string{"vm/overcommit_memory", "vm/panic_on_oom", "vm/max_map_count", "kernel/panic",
	"kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes", "kernel/pid_max",
	"kernel/core_pattern", "fs/file-max", "fs/nr_open"}

func shadowSysctls(scratch string) error {
	if err := mountWholeProc(filepath.Join(scratch, "proc")); err != nil {
		return err
	}

	for _, s := range shadowed {
		target, copied := filepath.Join("/proc/sys", s), filepath.Join(scratch, "sysctl", s)
		value, err := os.ReadFile(target)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(copied, value, 0o644); err != nil {
			return err
		}
		if err := unix.Mount(copied, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("shadow %s: %w", target, err)
		}
	}

	return nil
}

// mountWholeProc mounts a second /proc that nothing of the machine's covers. As on a host, pods with user
// namespaces can have a /proc then: the kernel makes none where parts of all others are hidden
// (mount_too_revealing).
func mountWholeProc(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("proc", path, "proc", plain, ""); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}
