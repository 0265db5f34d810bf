package podworker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/volume"
)

func (w *Worker) podDir(pod *v1.Pod) string { return filepath.Join(w.RootDir, "pods", string(pod.UID)) }

// prepare mounts the volumes. It is repeated when an object changed that a volume shows, and when a token
// must be renewed.
func (w *Worker) prepare(ctx context.Context, p *pod, pod *v1.Pod) error {
	p.mu.Lock()
	p.prepared = p.changes
	p.mu.Unlock()
	mounted, err := w.volumes.Setup(ctx, pod)
	if err != nil {
		reason := "FailedMount"
		if x, ok := errors.AsType[*volume.Error](err); ok {
			reason = x.Reason
		}
		if ctx.Err() == nil {
			w.events.Pod(pod, "", v1.EventTypeWarning, reason, err.Error())
		}

		return &failure{err: err, quiet: true}
	}

	for _, e := range mounted.Ungrown {
		w.events.Pod(pod, "", v1.EventTypeWarning, e.Reason, e.Error())
	}

	p.mu.Lock()
	p.volumes = mounted
	p.mu.Unlock()
	if at := w.volumes.Refresh(pod.UID); !at.IsZero() {
		w.refreshAt(p, at)
	}

	return nil
}

// createSandbox makes the pod's cgroup, log directory and sandbox.
func (w *Worker) createSandbox(ctx context.Context, pod *v1.Pod, attempt uint32) error {
	handler := ""
	if class := pod.Spec.RuntimeClassName; class != nil && *class != "" {
		var err error
		if handler, err = w.api.Handler(ctx, *class); err != nil {
			return err
		}
	}

	// not before the API server was asked: others need no class
	select {
	case w.sandboxes <- struct{}{}:
		defer func() { <-w.sandboxes }()
	case <-ctx.Done():
		return ctx.Err()
	}

	if err := w.cgroups.Ensure(ctx, pod); err != nil {
		return err
	}

	config, err := w.sandboxConfig(pod, attempt)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return err
	}

	_, err = w.runtime.RunSandbox(ctx, config, handler)
	return err
}

// maxHosts bounds what is taken of the node's own /etc/hosts: lists of blocked names have some megabytes.
const maxHosts = 16 << 20

// sandboxConfig is the configuration of a sandbox, with the node's resolver configuration as it is now.
func (w *Worker) sandboxConfig(pod *v1.Pod, attempt uint32) (*cri.PodSandboxConfig, error) {
	node := w.Node
	if w.HostDNS != nil {
		var err error
		if node.HostDNS, err = w.HostDNS(); err != nil {
			return nil, err
		}
	}
	return criconfig.Sandbox(node, pod, attempt, w.cgroups.Parent(pod))
}

// hostsFile writes the pod's /etc/hosts and returns its path. Containers have the file mounted and may have
// made anything of it.
func (w *Worker) hostsFile(pod *v1.Pod, ips []string) (string, error) {
	var node []byte
	if pod.Spec.HostNetwork {
		var err error
		if node, err = w.nodeHosts(); err != nil {
			return "", err
		}
	}

	path := filepath.Join(w.podDir(pod), "etc-hosts")
	want := criconfig.Hosts(pod, ips, w.Node.ClusterDomain, node)
	if have, err := boundedfile.Read(path, int64(len(want))); err == nil && bytes.Equal(have, want) {
		return path, nil
	}

	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", err
	}

	// In place, so that running containers see it.
	if f, err := boundedfile.Open(path, os.O_WRONLY|os.O_TRUNC); err == nil {
		_, err = f.Write(want)
		return path, errors.Join(err, f.Close())
	}

	return path, durable.WriteVolatile(path, want, 0o644)
}

func (w *Worker) nodeHosts() ([]byte, error) {
	data, err := boundedfile.ReadLinked(w.HostsFile, maxHosts)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// messageFile is the name of an instance's termination message file.
func messageFile(attempt uint32) string { return fmt.Sprintf("%08x", attempt) }

// teardown unmounts the volumes and removes the pod's directory and cgroup.
func (w *Worker) teardown(ctx context.Context, p *pod, pod *v1.Pod) error {
	if err := w.volumes.Teardown(ctx, pod.UID); err != nil {
		return fmt.Errorf("volumes: %w", err)
	}
	if err := w.cgroups.Remove(ctx, pod.UID); err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	return nil
}
