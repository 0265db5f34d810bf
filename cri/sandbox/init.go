package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/trivet-node/trivet/cri/monitor"
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

// startInit starts the init of the pod's shared PID namespace, pins the namespace, and returns the init's
// process ID.
func (s *Service) startInit(ctx context.Context, r Record) (pid int, err error) {
	handler, err := s.cfg.Handlers.Find(r.Handler)
	if err != nil {
		return 0, err
	}

	score := max(initOOMScore, s.cfg.OOMScoreMin)
	if err := s.writeInitBundle(r, score); err != nil {
		return 0, err
	}

	pid, err = s.cfg.Processes.Create(ctx, monitor.Container{
		ID:          initID(r.ID),
		Bundle:      s.initBundle(r.ID),
		Runtime:     handler.Runtime,
		OOMScoreAdj: score,
		Cgroup:      s.cfg.Driver.Dir(r.CgroupParent(), initID(r.ID)),
	})
	if err != nil {
		return 0, fmt.Errorf("init of the shared PID namespace: %w", err)
	}

	// Before the start, which fails if the init has ended: so it was the init that had this process ID.
	if err := s.cfg.Kernel.PinPID(pid, s.PIDNamespace(r)); err != nil {
		return 0, fmt.Errorf("shared PID namespace: %w", err)
	}

	return pid, s.cfg.Processes.Start(ctx, initID(r.ID))
}

// writeInitBundle writes the OCI bundle of the init. Its root directory holds nothing but the program.
func (s *Service) writeInitBundle(r Record, oomScore int) error {
	bundle := s.initBundle(r.ID)
	for _, dir := range []string{"rootfs/proc", "rootfs/dev"} {
		if err := os.MkdirAll(filepath.Join(bundle, dir), 0o755); err != nil {
			return err
		}
	}

	if err := os.WriteFile(filepath.Join(bundle, "rootfs/pause"), nil, 0o755); err != nil {
		return err
	}

	data, err := json.Marshal(s.initSpec(r, oomScore))
	if err != nil {
		return err
	}

	return os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600)
}

func (s *Service) initSpec(r Record, oomScore int) specs.Spec {
	namespaces := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace},
		{Type: specs.MountNamespace},
	}

	for kind, path := range s.Namespaces(r) {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}

	return specs.Spec{
		Version:     "1.0.2",
		Annotations: s.cfg.Driver.Annotations(),
		Root: &specs.Root{
			Path:     filepath.Join(s.initBundle(r.ID), "rootfs"),
			Readonly: true,
		},
		Process: &specs.Process{
			Args:            []string{"/pause", "pause"},
			Cwd:             "/",
			Env:             []string{"GOMAXPROCS=1"},
			OOMScoreAdj:     &oomScore,
			NoNewPrivileges: true,
			User:            specs.User{UID: 65535, GID: 65535},
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
				Source:      s.cfg.InitProgram,
				Options:     []string{"bind", "ro"},
			},
		},
		Linux: &specs.Linux{
			CgroupsPath: s.cfg.Driver.Path(r.CgroupParent(), initID(r.ID)),
			Namespaces:  namespaces,
		},
	}
}
