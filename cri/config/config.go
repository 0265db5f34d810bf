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
	"slices"

	"github.com/pelletier/go-toml/v2"

	"github.com/trivet-node/trivet/internal/metric"
)

// Config is the whole file. Flags of the same name win.
type Config struct {
	// Socket is the unix socket that CRI is served on.
	Socket string `toml:"socket"`

	// StateDir holds what ends with the boot; it is on tmpfs.
	StateDir string `toml:"state_dir"`

	// RootDir holds images and writable layers.
	RootDir string `toml:"root_dir"`

	// CertsDir holds the hosts.toml of registries.
	CertsDir string `toml:"certs_dir"`

	// PinnedImages are names of images that kubelet's garbage collection keeps.
	PinnedImages []string `toml:"pinned_images"`

	// OCIRuntime is that of the default handler: crun, runc or a path. Empty is crun, or runc where only that
	// is installed.
	OCIRuntime string `toml:"oci_runtime"`

	// AllowedAnnotations are those of the default handler, as Runtime's.
	AllowedAnnotations []string `toml:"allowed_annotations"`

	// Runtimes are further handlers, by the name that a RuntimeClass gives.
	Runtimes map[string]Runtime `toml:"runtimes"`

	// CgroupDriver is cgroupfs or systemd. Empty is that of KubeletConfig.
	CgroupDriver string `toml:"cgroup_driver"`

	// KubeletConfig is the configuration file of the node's agent (KubeletConfiguration).
	KubeletConfig string `toml:"kubelet_config"`

	// StreamAddr is the host:port of exec, attach and port-forward; port 0 is a free one.
	StreamAddr string `toml:"stream_addr"`

	// SeccompDir is where Localhost profiles with relative names are.
	SeccompDir string `toml:"seccomp_dir"`

	// UnprivilegedPorts and UnprivilegedICMP are for pods with a network namespace of their own: any process
	// may bind ports below 1024 there, and send pings.
	UnprivilegedPorts bool `toml:"enable_unprivileged_ports"`
	UnprivilegedICMP  bool `toml:"enable_unprivileged_icmp"`

	// MetricsAddress is where /metrics is served: host:port, or unix:///path; empty: nowhere.
	MetricsAddress string `toml:"metrics_address"`

	CNI     CNI     `toml:"cni"`
	Monitor Monitor `toml:"monitor"`
	Tracing Tracing `toml:"tracing"`
}

// Tracing says where spans go, of calls whose client traces them.
type Tracing struct {
	// Endpoint is host:port of an OTLP receiver (gRPC), or unix:///path; empty: no spans are made.
	Endpoint string `toml:"endpoint"`
}

// CNI says where CNI configurations, plugins and libcni's cache are.
type CNI struct {
	ConfDir  string   `toml:"conf_dir"`
	BinDirs  []string `toml:"bin_dirs"`
	CacheDir string   `toml:"cache_dir"`
}

// Runtime is the OCI runtime of a handler.
type Runtime struct {
	// Program is its path or its name.
	Program string `toml:"program"`

	// Args are global flags for it.
	Args []string `toml:"args"`

	// AllowedAnnotations are names, or patterns of path.Match, of annotations of pods and containers that go
	// to the OCI runtime. Some runtimes obey them, so these are orders that every user gives who can create a
	// pod for this handler.
	AllowedAnnotations []string `toml:"allowed_annotations"`
}

// Monitor says where trivet-monitor is.
type Monitor struct {
	// Program is its path; empty: beside trivet-cri's own executable, or in PATH.
	Program string `toml:"program"`

	// Socket is the unix socket that it serves.
	Socket string `toml:"socket"`
}

// Default returns the configuration without a file.
func Default() Config {
	return Config{
		Socket:        "/run/trivet/cri.sock",
		StateDir:      "/run/trivet/cri",
		RootDir:       "/var/lib/trivet/cri",
		CertsDir:      "/etc/containerd/certs.d",
		KubeletConfig: "/var/lib/kubelet/config.yaml",
		StreamAddr:    "127.0.0.1:0",
		SeccompDir:    "/var/lib/kubelet/seccomp",
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

// Load reads a file over cfg. A file that does not exist is not an error unless it is required.
func Load(path string, required bool, cfg *Config) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()

	if err := toml.NewDecoder(f).DisallowUnknownFields().Decode(cfg); err != nil {
		return located(path, err)
	}

	return nil
}

// located adds to an error where in the file it is.
func located(path string, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		return fmt.Errorf("%s: unknown key:\n%s", path, strict.String())
	}
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, column := decode.Position()
		return fmt.Errorf("%s:%d:%d: %w", path, row, column, err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// Validate checks what can be checked without looking at the machine.
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
			return fmt.Errorf("%s: %q is not an absolute path", key, path)
		}
	}

	if err := metric.CheckAddress(c.MetricsAddress); err != nil {
		return fmt.Errorf("metrics_address: %w", err)
	}
	if !slices.Contains([]string{"", "cgroupfs", "systemd"}, c.CgroupDriver) {
		return fmt.Errorf("cgroup_driver: %q is neither cgroupfs nor systemd", c.CgroupDriver)
	}
	if len(c.CNI.BinDirs) == 0 {
		return errors.New("cni.bin_dirs: names no directory")
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

// checkPatterns returns an error for a pattern that path.Match cannot use.
func checkPatterns(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
	}
	return nil
}
