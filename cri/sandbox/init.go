package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/cri/spec"
)

const initPrefix = "pause-"

// initID is the ID of a sandbox's init in the monitor and the OCI runtime.
func initID(sandboxID string) string { return initPrefix + sandboxID }

// InitOf returns the sandbox whose init a container of the monitor is. isInit is false for the others, which
// are containers of pods.
func InitOf(containerID string) (sandboxID string, isInit bool) {
	return strings.CutPrefix(containerID, initPrefix)
}

// initOOMScore is that of other runtimes' pause containers: it is killed only after all else of the pod.
const initOOMScore = -998

// initUser is that of other runtimes' pause containers. A small user namespace has its last one for it.
const initUser = 65535

// inits are the processes of pods that share their PID namespace: one for each, the init of the namespace.
type inits struct {
	paths
	cfg Config
}

// start starts the init of a pod, pins its PID namespace, and returns its process ID.
func (i inits) start(ctx context.Context, r Record) (pid int, err error) {
	handler, err := i.cfg.Handlers.Find(r.Handler)
	if err != nil {
		return 0, err
	}

	score := max(initOOMScore, i.cfg.OOMScoreMin)
	if err := i.writeBundle(r, score); err != nil {
		return 0, err
	}

	pid, err = i.cfg.Processes.Create(ctx, monitor.Container{
		ID:          initID(r.ID),
		Bundle:      i.initBundle(r.ID),
		Runtime:     handler.Runtime,
		OOMScoreAdj: score,
		Cgroup:      i.cfg.Driver.Dir(r.CgroupParent(), initID(r.ID)),
	})
	if err != nil {
		return 0, fmt.Errorf("init of the shared PID namespace: %w", err)
	}

	// Before the start, which fails if the init has ended: so it was the init that had this process ID.
	if err := i.cfg.Kernel.PinPID(pid, i.PIDNamespace(r)); err != nil {
		return 0, fmt.Errorf("shared PID namespace: %w", err)
	}

	return pid, i.cfg.Processes.Start(ctx, initID(r.ID))
}

// remove ends the init of a pod and removes the pin of its PID namespace. Those that are gone are success.
func (i inits) remove(ctx context.Context, r Record) error {
	return errors.Join(
		i.cfg.Processes.Delete(ctx, initID(r.ID)),
		i.cfg.Kernel.Unpin(i.PIDNamespace(r)),
	)
}

// writeBundle writes the OCI bundle of the init. Its root directory holds nothing but the program.
func (i inits) writeBundle(r Record, oomScore int) error {
	bundle := i.initBundle(r.ID)
	for _, dir := range []string{"rootfs/proc", "rootfs/dev"} {
		if err := os.MkdirAll(filepath.Join(bundle, dir), 0o755); err != nil {
			return err
		}
	}

	if err := os.WriteFile(filepath.Join(bundle, "rootfs/pause"), nil, 0o755); err != nil {
		return err
	}
	if err := i.admit(r); err != nil {
		return err
	}

	data, err := json.Marshal(i.spec(r, oomScore))
	if err != nil {
		return err
	}

	return os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600)
}

// admit lets the root of a pod with a user namespace come to the root directory of its init.
func (i inits) admit(r Record) error {
	users := i.Users(r)
	if users == nil {
		return nil
	}
	for _, dir := range []string{i.dir(r.ID), i.initBundle(r.ID)} {
		if err := rootfs.Admit(dir, *users); err != nil {
			return err
		}
	}
	return nil
}

func (i inits) spec(r Record, oomScore int) specs.Spec {
	namespaces := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace},
		{Type: specs.MountNamespace},
	}

	for kind, path := range i.Namespaces(r) {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}

	user, users := uint32(initUser), []specs.LinuxIDMapping(nil)
	if u := i.Users(r); u != nil {
		user, users = min(user, u.Length-1), spec.Mappings(*u)
	}

	return specs.Spec{
		Version:     "1.0.2",
		Annotations: i.cfg.Driver.Annotations(nil),
		Root: &specs.Root{
			Path:     filepath.Join(i.initBundle(r.ID), "rootfs"),
			Readonly: true,
		},
		Process: &specs.Process{
			Args:            []string{"/pause", "pause"},
			Cwd:             "/",
			Env:             []string{"GOMAXPROCS=1"},
			OOMScoreAdj:     &oomScore,
			NoNewPrivileges: true,
			User:            specs.User{UID: user, GID: user},
		},
		Mounts: []specs.Mount{
			{
				Destination: "/proc",
				Type:        "proc",
				Source:      "proc",
			},
			{
				// runc makes devices even where none is asked for, and the state directory is usually
				// mounted nodev.
				Destination: "/dev",
				Type:        "tmpfs",
				Source:      "tmpfs",
				Options:     []string{"nosuid", "noexec", "mode=755", "size=64k"},
			},
			{
				Destination: "/pause",
				Type:        "bind",
				Source:      i.cfg.InitProgram,
				Options:     []string{"bind", "ro"},
			},
		},
		Linux: &specs.Linux{
			CgroupsPath: i.cfg.Driver.Path(r.CgroupParent(), initID(r.ID)),
			Namespaces:  namespaces,
			UIDMappings: users,
			GIDMappings: users,
		},
	}
}
