// Command trivet-cri is a CRI v1 server: it runs pods for kubelet, trivet-node or crictl.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `
trivet-cri runs pods: it serves the Kubernetes Container Runtime Interface (CRI v1) on a unix socket, for kubelet, trivet-node or crictl. It needs
an OCI runtime (crun or runc), CNI plugins with a configuration, and trivet-monitor beside it or in PATH.
Containers survive it.
"trivet-cri images" imports, lists and removes images on a node where it runs.`

func main() {
	if len(os.Args) > 1 && os.Args[1] == "images" {
		program.Tool("trivet-cri", images)
	}
	program.Main("trivet-cri", run)
}

func run(ctx context.Context, env *program.Env) error {
	fs := env.Flags(about)
	file := fs.String("config",
		"/etc/trivet/cri.toml", "configuration file (TOML); the default one may be missing")
	cfg := config.Default()
	values := map[string]*string{}
	for _, f := range []struct {
		name  string
		field *string
		help  string
	}{
		{"socket", &cfg.Socket, "unix socket to serve CRI on"},
		{"state-dir", &cfg.StateDir, "directory of boot-scoped state; must be on tmpfs"},
		{"root-dir", &cfg.RootDir, "directory of images and writable layers"},
		{"certs-dir", &cfg.CertsDir, "directory of <host>/hosts.toml of registries"},
		{"oci-runtime", &cfg.OCIRuntime, "OCI runtime: crun, runc or a path; empty: what is there"},
		{"cgroup-driver", &cfg.CgroupDriver, "cgroupfs or systemd"},
		{"stream-addr", &cfg.StreamAddr, "host:port for exec, attach and port-forward"},
		{"cni-conf-dir", &cfg.CNI.ConfDir, "directory of CNI configurations"},
		{"cni-bin-dir", &cfg.CNI.BinDirs[0], "directory of CNI plugins"},
		{"cni-cache-dir", &cfg.CNI.CacheDir, "directory of libcni's cache"},
		{"monitor-socket", &cfg.Monitor.Socket, "unix socket of trivet-monitor"},
		{"monitor", &cfg.Monitor.Program, "path of trivet-monitor; empty: beside this program"},
	} {
		values[f.name] = f.field
		fs.String(f.name, *f.field, f.help)
	}

	end := fs.Bool("shutdown", false, "end the running trivet-cri and trivet-monitor, if no pod is left")
	if err := env.Parse(fs); err != nil {
		return err
	}

	if fs.NArg() > 0 {
		return &program.UsageError{
			Err: fmt.Errorf("unexpected argument %q (see trivet-cri --help)", fs.Arg(0)),
		}
	}

	if err := configure(fs, *file, &cfg, values); err != nil {
		return &program.UsageError{Err: err}
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}
	if *end {
		return shutdown(ctx, cfg)
	}

	program.SmallHeap()
	return serve(ctx, cfg, env.Log)
}
