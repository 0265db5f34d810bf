package main

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path"
	"path/filepath"
	"slices"

	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/internal/program"
)

// defaultRuntime is the OCI runtime where the configuration names none: crun, the faster one, unless only
// runc is installed.
func defaultRuntime() string {
	if _, err := exec.LookPath("crun"); err == nil {
		return "crun"
	}
	if _, err := exec.LookPath("runc"); err == nil {
		return "runc"
	}
	return "crun"
}

// findHandlers finds the program of each handler. The default one serves the empty name and its own.
func findHandlers(cfg config.Config) (ociruntime.Handlers, error) {
	byDefault := config.Runtime{Program: cfg.OCIRuntime, AllowedAnnotations: cfg.AllowedAnnotations}
	wanted := map[string]config.Runtime{
		"":                        byDefault,
		path.Base(cfg.OCIRuntime): byDefault,
	}

	maps.Copy(wanted, cfg.Runtimes)

	handlers := ociruntime.Handlers{}
	for name, r := range wanted {
		found, err := exec.LookPath(r.Program)
		if err != nil {
			return nil, &program.CantRunError{
				What: fmt.Sprintf("OCI runtime %s is not installed: %v", r.Program, err),
				Do:   "install crun or runc, or choose one with --oci-runtime",
			}
		}

		args := r.Args
		if cfg.CgroupDriver == "systemd" {
			args = append(slices.Clone(args), "--systemd-cgroup")
		}

		handlers[name] = ociruntime.Handler{
			Runtime: ociruntime.Runtime{
				Program: found,
				Root:    filepath.Join(cfg.StateDir, "oci", path.Base(found)),
				Args:    args,
			},
			AllowedAnnotations: r.AllowedAnnotations,
		}
	}

	return handlers, nil
}

// findUsers finds out whether pods of each handler can have user namespaces: by trial of what the kernel must
// do, and by the word of the OCI runtime.
func (p *parts) findUsers(ctx context.Context) {
	kernel := p.roots.CheckMapping()
	asked := map[string]error{}
	for name, h := range p.handlers {
		why, known := asked[h.Runtime.Program]
		if !known {
			why = kernel
			if why == nil {
				why = h.Runtime.CheckUsers(ctx)
			}

			asked[h.Runtime.Program] = why
			if why != nil {
				p.log.Info("pods cannot have user namespaces", "runtime", h.Runtime.Program, "err", why)
			}
		}

		h.NoUsers = why
		p.handlers[name] = h
	}
}
