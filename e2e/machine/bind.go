package machine

import (
	"fmt"
	"maps"
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
	sources := map[string]string{dir: dir, filepath.Join(dir, "boot_id"): "/proc/sys/kernel/random/boot_id"}
	for _, k := range c.Keep {
		kept := filepath.Join(dir, "keep", k)
		if err := os.MkdirAll(kept, 0o755); err != nil {
			return nil, err
		}

		sources[kept] = k
	}

	maps.Copy(sources, c.Expose)

	var out bindMounts
	for source, target := range sources {
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
