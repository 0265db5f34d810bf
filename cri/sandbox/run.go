package sandbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/trace"
	"github.com/trivet-node/trivet/internal/undo"
)

// Run makes a sandbox and returns its ID. Called again for the same pod and attempt while that sandbox is
// ready, it returns the one that exists: a caller whose deadline passed finds what it has begun. On an error
// nothing is left.
func (s *Service) Run(
	ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string,
) (id string, err error) {
	meta := config.GetMetadata()
	if meta.GetName() == "" || meta.GetUid() == "" {
		return "", fmt.Errorf("%w: metadata has no name or no uid", ErrInvalid)
	}

	name := fmt.Sprintf("%s/%s/%s/%d", meta.Namespace, meta.Name, meta.Uid, meta.Attempt)

	// A repeated call waits here until the first one has ended.
	unlock, err := s.names.Lock(ctx, name)
	if err != nil {
		return "", fmt.Errorf("pod sandbox %s: %w", name, err)
	}
	defer unlock()

	if found, ok := s.readyOf(meta); ok {
		return found, nil
	}

	r, err := s.newRecord(config, handler)
	if err != nil {
		return "", fmt.Errorf("pod sandbox %s: %w", name, err)
	}

	unlockID, err := s.locks.Lock(ctx, r.ID)
	if err != nil {
		return "", err
	}
	defer unlockID()

	if err := s.build(ctx, &r); err != nil {
		return "", fmt.Errorf("pod sandbox %s: %w", name, err)
	}

	return r.ID, nil
}

// readyOf returns the ready sandbox of a pod and attempt, if there is one.
func (s *Service) readyOf(meta *runtimeapi.PodSandboxMetadata) (string, bool) {
	for _, r := range s.records.List() {
		if r.State == life.Ready && samePod(r.config.GetMetadata(), meta) {
			return r.ID, true
		}
	}
	return "", false
}

// samePod reports whether two sandboxes are the same attempt of the same pod.
func samePod(a, b *runtimeapi.PodSandboxMetadata) bool {
	return a.GetUid() == b.GetUid() && a.GetAttempt() == b.GetAttempt() &&
		a.GetName() == b.GetName() && a.GetNamespace() == b.GetNamespace()
}

// newRecord returns the record of a sandbox that is to be made. It refuses what cannot be made.
func (s *Service) newRecord(config *runtimeapi.PodSandboxConfig, handler string) (Record, error) {
	raw, err := proto.Marshal(config)
	if err != nil {
		return Record{}, err
	}

	r := Record{
		ID:      record.NewID(),
		State:   life.Making,
		Raw:     raw,
		Handler: handler,
		Created: time.Now(),
		config:  proto.CloneOf(config),
	}

	r.Network = r.ownsNetwork()

	if err := s.cfg.Driver.Check(r.CgroupParent()); err != nil {
		return r, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := checkSysctls(r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrInvalid, err)
	}

	found, err := s.cfg.Handlers.Find(handler)
	if err == nil {
		err = checkUsers(r, found)
	}

	return r, err
}

// checkUsers refuses a user namespace that cannot be made, or not beside what else the pod has of the host: a
// namespace of the host does not belong to it, so that its root has no rights there.
func checkUsers(r Record, handler ociruntime.Handler) error {
	users, err := spec.UsersOf(r.Options().GetUsernsOptions())
	if err == nil && users == nil {
		return nil
	}

	switch {
	case err != nil:
	case !r.ownsNetwork():
		err = errors.New("user namespace: the pod has the host's network")
	case !r.ownsIPC():
		err = errors.New("user namespace: the pod has the host's IPC namespace")
	case r.Options().GetPid() == runtimeapi.NamespaceMode_NODE:
		err = errors.New("user namespace: the pod has the host's PID namespace")
	case handler.NoUsers != nil:
		err = fmt.Errorf("user namespace: %w", handler.NoUsers)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}

	return err
}

// build does the steps in order; when one fails, those before it are undone. The network comes last, as its
// plugins need the namespace, and sysctls of an interface need the interface.
func (s *Service) build(ctx context.Context, r *Record) (err error) {
	var u undo.Stack
	defer u.Unwind(ctx, &err)

	if err := s.records.Put(r.ID, *r); err != nil {
		return err
	}

	u.Push("sandbox "+r.ID, func(ctx context.Context) error { return s.undo(ctx, *r) })

	ended := trace.Step(ctx, "namespaces")
	if err = s.makeFiles(*r); err == nil {
		err = s.namespaces.make(*r)
	}

	ended(err)
	if err != nil {
		return err
	}

	if r.sharesPID() {
		if r.InitPid, err = s.inits.start(ctx, *r); err != nil {
			return err
		}
	}

	if r.Network {
		if r.IPs, err = s.cfg.Network.Setup(ctx, s.attachment(*r)); err != nil {
			return err
		}
		if err := s.namespaces.writeNetSysctls(*r); err != nil {
			return err
		}
	}

	// Nobody would remove the sandbox of a caller that is gone.
	if ctx.Err() != nil {
		return fmt.Errorf("caller is gone: %w", context.Cause(ctx))
	}

	r.State = life.Ready
	if err := s.records.Put(r.ID, *r); err != nil {
		return err
	}

	// InitEnded may have been called while the sandbox was not ready yet, and has done nothing then.
	if r.InitPid != 0 && !s.cfg.Processes.Lives(initID(r.ID)) {
		return errors.New("init of the shared PID namespace has ended already")
	}

	return nil
}

// undo destroys a sandbox that was not finished. One that cannot be destroyed now is listed as stopped, so
// that the client removes it later.
func (s *Service) undo(ctx context.Context, r Record) error {
	err := s.destroy(ctx, r)
	if err == nil {
		return nil
	}
	r.State = life.Stopped
	r.Stopped = time.Now()
	return errors.Join(err, s.records.Put(r.ID, r))
}

// attachment returns what the network needs to know of the pod.
func (s *Service) attachment(r Record) network.Attachment {
	meta := r.config.GetMetadata()
	a := network.Attachment{
		ID:          r.ID,
		Netns:       s.Netns(r),
		Name:        meta.GetName(),
		Namespace:   meta.GetNamespace(),
		UID:         meta.GetUid(),
		CgroupPath:  r.CgroupParent(),
		Annotations: r.config.GetAnnotations(),
	}

	for _, p := range r.config.GetPortMappings() {
		if p.HostPort <= 0 {
			continue
		}

		a.Ports = append(a.Ports, network.PortMapping{
			HostPort:      p.HostPort,
			ContainerPort: p.ContainerPort,
			Protocol:      strings.ToLower(p.Protocol.String()),
			HostIP:        p.HostIp,
		})
	}

	if dns := r.config.GetDnsConfig(); dns != nil {
		a.DNS = map[string]any{
			"servers":  dns.Servers,
			"searches": dns.Searches,
			"options":  dns.Options,
		}
	}

	return a
}
