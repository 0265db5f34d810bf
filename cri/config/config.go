// Package config is trivet-cri's configuration file (TOML). Unknown keys and wrong values are errors that
// name the line.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// Config is the whole file. Flags of the same name win.
type Config struct {
	Socket   string `toml:"socket"`    // CRI socket
	StateDir string `toml:"state_dir"` // ends with the boot
	RootDir  string `toml:"root_dir"`  // images
	CertsDir string `toml:"certs_dir"` // hosts.toml of registries
	// names of images that kubelet's garbage collection is to keep
	PinnedImages []string `toml:"pinned_images"`
	OCIRuntime   string   `toml:"oci_runtime"`   // of the default handler: crun, runc or a path
	CgroupDriver string   `toml:"cgroup_driver"` // cgroupfs or systemd
	StreamAddr   string   `toml:"stream_addr"`   // exec, attach, port-forward
	// below which Localhost profiles with relative names are
	Seccomp string `toml:"seccomp_dir"`
	CNI     CNI    `toml:"cni"`
	// further handlers, by the name that a RuntimeClass gives
	Runtimes map[string]Runtime `toml:"runtimes"`
	Monitor  Monitor            `toml:"monitor"`

	// Of pods with a network namespace of their own: anybody there may bind ports below 1024, and ping.
	UnprivilegedPorts bool `toml:"enable_unprivileged_ports"`
	UnprivilegedICMP  bool `toml:"enable_unprivileged_icmp"`

	// AllowedAnnotations are those of the default handler, as Runtime's.
	AllowedAnnotations []string `toml:"allowed_annotations"`
}

// CNI says where conflists, plugins and libcni's cache are.
type CNI struct {
	ConfDir  string   `toml:"conf_dir"`
	BinDirs  []string `toml:"bin_dirs"`
	CacheDir string   `toml:"cache_dir"`
}

// Runtime is an OCI runtime of a handler.
type Runtime struct {
	Program string   `toml:"program"`
	Args    []string `toml:"args"`

	// AllowedAnnotations are names, or patterns of path.Match, of annotations of pods and containers that
	// go to the OCI runtime, which may take orders from them: whoever can create a pod for this handler
	// gives these.
	AllowedAnnotations []string `toml:"allowed_annotations"`
}

// Monitor says where trivet-monitor is.
type Monitor struct {
	Program string `toml:"program"` // empty: beside trivet-cri's own executable
	Socket  string `toml:"socket"`
}

// Default is the configuration without a file.
func Default() Config {
	return Config{
		Socket:       "/run/trivet/cri.sock",
		StateDir:     "/run/trivet/cri",
		RootDir:      "/var/lib/trivet/cri",
		CertsDir:     "/etc/containerd/certs.d",
		CgroupDriver: "cgroupfs",
		StreamAddr:   "127.0.0.1:0",
		Seccomp:      "/var/lib/kubelet/seccomp",
		CNI: CNI{
			ConfDir:  "/etc/cni/net.d",
			BinDirs:  []string{"/opt/cni/bin"},
			CacheDir: "/var/lib/cni",
		},
		Monitor: Monitor{Socket: "/run/trivet/monitor.sock"},

		UnprivilegedPorts: true,
		UnprivilegedICMP:  true,
	}
}

// Load reads the file over cfg. A file that is not there is no error unless it is required.
func Load(path string, required bool, cfg *Config) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()

	err = toml.NewDecoder(f).DisallowUnknownFields().Decode(cfg)
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		return fmt.Errorf("%s: unknown key:\n%s", path, strict.String())
	}

	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, column := decode.Position()
		return fmt.Errorf("%s:%d:%d: %w", path, row, column, err)
	}

	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}

	return nil
}

// Validate checks what can be checked without the machine.
func (c Config) Validate() error {
	for key, path := range map[string]string{
		"socket":         c.Socket,
		"state_dir":      c.StateDir,
		"root_dir":       c.RootDir,
		"cni.conf_dir":   c.CNI.ConfDir,
		"cni.cache_dir":  c.CNI.CacheDir,
		"monitor.socket": c.Monitor.Socket,
	} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%s: %q is no absolute path", key, path)
		}
	}

	if c.CgroupDriver != "cgroupfs" && c.CgroupDriver != "systemd" {
		return fmt.Errorf("cgroup_driver: %q is neither cgroupfs nor systemd", c.CgroupDriver)
	}
	if len(c.CNI.BinDirs) == 0 {
		return errors.New("cni.bin_dirs: no directory")
	}

	for name, r := range c.Runtimes {
		if r.Program == "" {
			return fmt.Errorf("runtimes.%s.program: no program", name)
		}
		if err := checkPatterns(r.AllowedAnnotations); err != nil {
			return fmt.Errorf("runtimes.%s.allowed_annotations: %w", name, err)
		}
	}

	if err := checkPatterns(c.AllowedAnnotations); err != nil {
		return fmt.Errorf("allowed_annotations: %w", err)
	}

	return nil
}

func checkPatterns(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
	}
	return nil
}
