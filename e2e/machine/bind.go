package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// bindMounts hold their sources open, because the sources' paths may be hidden by other mounts in between.
type bindMounts []bindMount

type bindMount struct {
	source *os.File
	isDir  bool
	target string
}

func openBinds(dir string, c Config) (bindMounts, error) {
	// The machine's own directory keeps its path: it may lie below /tmp or another directory that is covered.
	targets := map[string]string{dir: dir, "/proc/sys/kernel/random/boot_id": filepath.Join(dir, "boot_id")}
	for _, path := range c.Keep {
		targets[path] = filepath.Join(dir, "keep", path)
	}

	// A directory that survives a reboot may be on a disk.
	for _, d := range c.Disks {
		for _, path := range d.Dirs {
			targets[path] = filepath.Join(d.root(dir), path)
		}
	}

	for source, target := range c.Expose {
		targets[target] = source
	}

	for _, path := range slices.Concat(c.Keep, diskDirs(c.Disks)) {
		if err := os.MkdirAll(targets[path], 0o755); err != nil {
			return nil, err
		}
	}

	var out bindMounts
	for target, source := range targets {
		f, err := os.OpenFile(source, unix.O_PATH, 0)
		if err != nil {
			out.close()
			return nil, err
		}

		st, err := f.Stat()
		if err != nil {
			out.close()
			return nil, err
		}

		out = append(out, bindMount{f, st.IsDir(), target})
	}

	slices.SortFunc(out, func(a, b bindMount) int { return strings.Compare(a.target, b.target) })
	return out, nil
}

func (b bindMounts) close() {
	for _, m := range b {
		m.source.Close()
	}
}

func (b bindMounts) mount() error {
	for _, m := range b {
		if err := makeTarget(m); err != nil {
			return err
		}
		source := fmt.Sprintf("/proc/self/fd/%d", m.source.Fd())
		if err := unix.Mount(source, m.target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s on %s: %w", m.source.Name(), m.target, err)
		}
	}
	return nil
}

func makeTarget(m bindMount) error {
	if m.isDir {
		return os.MkdirAll(m.target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(m.target), 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(m.target); err == nil {
		return nil
	}
	return os.WriteFile(m.target, nil, 0o644)
}
