package main

import (
	"fmt"
	"maps"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/internal/program"
)

// runtimeSet is the OCI runtimes by handler.
type runtimeSet map[string]handler

// handler is an OCI runtime and the annotations of pods that it may see.
type handler struct {
	runtime     ociruntime.Runtime
	annotations []string
}

// findRuntimes finds the program of each handler. The default one serves the empty name and its own.
func findRuntimes(cfg config.Config) (runtimeSet, error) {
	byDefault := config.Runtime{Program: cfg.OCIRuntime, AllowedAnnotations: cfg.AllowedAnnotations}
	wanted := map[string]config.Runtime{"": byDefault, path.Base(cfg.OCIRuntime): byDefault}
	maps.Copy(wanted, cfg.Runtimes)

	set := runtimeSet{}
	for name, r := range wanted {
		found, err := exec.LookPath(r.Program)
		if err != nil {
			return nil, &program.CantRunError{
				What: "OCI runtime " + r.Program + " is not there: " + err.Error(),
				Do:   "install crun or runc, or choose one with --oci-runtime",
			}
		}

		args := r.Args
		if cfg.CgroupDriver == "systemd" {
			args = append(slices.Clone(args), "--systemd-cgroup")
		}

		root := filepath.Join(cfg.StateDir, "oci", path.Base(found))
		set[name] = handler{ociruntime.Runtime{Program: found, Root: root, Args: args}, r.AllowedAnnotations}
	}

	return set, nil
}

func (s runtimeSet) find(name string) (ociruntime.Runtime, error) {
	h, ok := s[name]
	if !ok {
		there := strings.Join(s.names(), ", ")
		return h.runtime, fmt.Errorf("no runtime handler %q is configured (there are: %s)", name, there)
	}
	return h.runtime, nil
}

func (s runtimeSet) allowedAnnotations(name string) []string { return s[name].annotations }

func (s runtimeSet) names() []string { return slices.Sorted(maps.Keys(s)) }
