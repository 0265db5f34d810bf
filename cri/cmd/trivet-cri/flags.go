package main

import (
	"flag"
	"fmt"

	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/internal/metric"
)

// option is a flag that stands for a key of the configuration file.
type option struct {
	name, help string
	field      func(*config.Config) *string
}

// options are those of the server.
var options = []option{
	{
		name:  "socket",
		help:  "unix socket to serve CRI on",
		field: func(c *config.Config) *string { return &c.Socket },
	},
	{
		name:  "state-dir",
		help:  "directory of boot-scoped state; must be on tmpfs",
		field: func(c *config.Config) *string { return &c.StateDir },
	},
	{
		name:  "root-dir",
		help:  "directory of images and writable layers",
		field: func(c *config.Config) *string { return &c.RootDir },
	},
	{
		name:  "certs-dir",
		help:  "directory of <host>/hosts.toml of registries",
		field: func(c *config.Config) *string { return &c.CertsDir },
	},
	{
		name:  "oci-runtime",
		help:  "OCI runtime: crun, runc or a path; empty: what is installed",
		field: func(c *config.Config) *string { return &c.OCIRuntime },
	},
	{
		name:  "cgroup-driver",
		help:  "cgroupfs or systemd; empty: that of kubelet's configuration",
		field: func(c *config.Config) *string { return &c.CgroupDriver },
	},
	{
		name:  "kubelet-config",
		help:  "configuration file of the node's agent, for its cgroup driver",
		field: func(c *config.Config) *string { return &c.KubeletConfig },
	},
	{
		name:  "stream-addr",
		help:  "host:port for exec, attach and port-forward",
		field: func(c *config.Config) *string { return &c.StreamAddr },
	},
	{
		name:  "cni-conf-dir",
		help:  "directory of CNI configurations",
		field: func(c *config.Config) *string { return &c.CNI.ConfDir },
	},
	{
		name:  "cni-bin-dir",
		help:  "directory of CNI plugins",
		field: func(c *config.Config) *string { return &c.CNI.BinDirs[0] },
	},
	{
		name:  "cni-cache-dir",
		help:  "directory of libcni's cache",
		field: func(c *config.Config) *string { return &c.CNI.CacheDir },
	},
	{
		name:  "monitor-socket",
		help:  "unix socket of trivet-monitor",
		field: func(c *config.Config) *string { return &c.Monitor.Socket },
	},
	{
		name:  "monitor",
		help:  "path of trivet-monitor; empty: beside this program",
		field: func(c *config.Config) *string { return &c.Monitor.Program },
	},
	{
		name:  "tracing-endpoint",
		help:  "host:port or unix:///path of an OTLP receiver (gRPC) of spans; empty: none are made",
		field: func(c *config.Config) *string { return &c.Tracing.Endpoint },
	},
	{
		name:  metric.Flag,
		help:  metric.Usage,
		field: func(c *config.Config) *string { return &c.MetricsAddress },
	},
}

const defaultFile = "/etc/trivet/cri.toml"

// settings are the flags of a command line and the configuration file that they name.
type settings struct {
	flags   *flag.FlagSet
	file    *string
	options []option
}

// newSettings defines a flag for the file, and one for each option.
func newSettings(flags *flag.FlagSet, options []option) *settings {
	const help = "configuration file (TOML); the default one may be missing"
	s := &settings{
		flags:   flags,
		file:    flags.String("config", defaultFile, help),
		options: options,
	}
	cfg := config.Default()
	for _, o := range options {
		flags.String(o.name, *o.field(&cfg), o.help)
	}
	return s
}

// load returns the configuration: the defaults, what the file says over them, and what the flags that were
// given say over both.
func (s *settings) load() (config.Config, error) {
	given := map[string]string{}
	s.flags.Visit(func(f *flag.Flag) { given[f.Name] = f.Value.String() })

	cfg := config.Default()
	_, required := given["config"]
	if err := config.Load(*s.file, required, &cfg); err != nil {
		return cfg, err
	}
	if len(cfg.CNI.BinDirs) == 0 {
		return cfg, fmt.Errorf("%s: cni.bin_dirs: names no directory", *s.file)
	}

	for _, o := range s.options {
		if value, ok := given[o.name]; ok {
			*o.field(&cfg) = value
		}
	}

	return cfg, cfg.Validate()
}
