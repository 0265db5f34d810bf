package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/internal/namespace"
)

const pausePrefix = "pause-"

func pauseID(id string) string { return pausePrefix + id }

// OfPause tells whose init of a shared PID namespace a container of the monitor is, if it is one.
func OfPause(containerID string) (sandboxID string, isPause bool) {
	return strings.CutPrefix(containerID, pausePrefix)
}

// PIDNamespace is where the pod's shared PID namespace is pinned; empty when it has none. A pin, unlike its
// init's number, means the same namespace forever: once the init has ended, nothing can be started in it.
func (s *Sandboxes) PIDNamespace(r Record) string {
	if r.Options().GetPid() != runtimeapi.NamespaceMode_POD {
		return ""
	}
	return filepath.Join(s.dir(r.ID), "ns", "pid")
}

// Ended notes that the init of a shared PID namespace has ended, and with it all that ran there: the sandbox
// is not ready any more, and whoever made it makes another. News reports whether it was ready until now. It
// takes no lock by ID: Stop ends that init while it holds it.
func (s *Sandboxes) Ended(id string) (news bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	r, ok := s.all[id]
	if !ok || r.State != Ready {
		return false, nil
	}

	r.State, r.Stopped = Stopped, time.Now()
	s.all[id] = r
	if err := s.store.Put(id, r); err != nil {
		return true, fmt.Errorf("record pod sandbox %s: %w", id, err)
	}

	return true, nil
}

// startPause starts the init of the pod's shared PID namespace, from a root directory that holds nothing but
// the program.
func (s *Sandboxes) startPause(ctx context.Context, r Record) (pid int, err error) {
	runtime, err := s.cfg.Runtime(r.Handler)
	if err != nil {
		return 0, err
	}

	bundle := filepath.Join(s.dir(r.ID), "pause")
	for _, dir := range []string{"rootfs/proc", "rootfs/dev"} {
		if err := os.MkdirAll(filepath.Join(bundle, dir), 0o755); err != nil {
			return 0, err
		}
	}

	if err := os.WriteFile(filepath.Join(bundle, "rootfs/pause"), nil, 0o755); err != nil {
		return 0, err
	}

	adj := max(-998, s.cfg.OOMMin)
	spec := specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: filepath.Join(bundle, "rootfs"), Readonly: true},
		Process: &specs.Process{
			Args: []string{
				"/pause",
				"pause",
			},
			Cwd:             "/",
			Env:             []string{"GOMAXPROCS=1"},
			OOMScoreAdj:     &adj,
			NoNewPrivileges: true,
			User:            specs.User{UID: 65535, GID: 65535},
		},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"},
			// runc makes devices even where nobody asked, and the state directory is usually mounted nodev.
			{
				Destination: "/dev",
				Type:        "tmpfs",
				Source:      "tmpfs",
				Options:     []string{"nosuid", "noexec", "mode=755", "size=64k"},
			},
			{Destination: "/pause", Type: "bind", Source: s.cfg.Pause, Options: []string{"bind", "ro"}}},
		Linux: &specs.Linux{
			CgroupsPath: s.cfg.Cgroup(r.config.GetLinux().GetCgroupParent(), pauseID(r.ID)),
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}},
		},
	}

	for kind, path := range s.Namespaces(r) {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}

	data, err := json.Marshal(spec)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600); err != nil {
		return 0, err
	}

	if pid, err = s.cfg.Monitor.Create(ctx, monitor.Container{
		ID:          pauseID(r.ID),
		Bundle:      bundle,
		Runtime:     runtime,
		OOMScoreAdj: adj,
		Cgroup:      s.cfg.Group(r.config.GetLinux().GetCgroupParent(), pauseID(r.ID)),
	}); err != nil {
		return 0, fmt.Errorf("init of the shared PID namespace: %w", err)
	}

	// Before the start, which fails when the init has ended: so it was the init that had this number.
	if err := namespace.Pin(namespace.PID, pid, s.PIDNamespace(r)); err != nil {
		return 0, fmt.Errorf("shared PID namespace: %w", err)
	}

	return pid, s.cfg.Monitor.Start(ctx, pauseID(r.ID))
}
