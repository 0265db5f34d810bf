package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/bundle"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Create makes a container that waits for Start, and returns its ID. Called again for the same name and
// attempt, it returns the one that exists. On an error nothing is left.
func (c *Service) Create(
	ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig,
) (id string, err error) {
	pod, err := c.cfg.Sandboxes.Get(sandboxID)
	if err != nil {
		return "", err
	}

	done := c.pending.begin(pod.ID)
	defer done()

	meta := config.GetMetadata()
	if meta.GetName() == "" {
		return "", fmt.Errorf("%w: metadata has no name", ErrInvalid)
	}

	// A repeated call waits here until the first one has ended.
	unlock, err := c.names.Lock(ctx, fmt.Sprintf("%s/%s/%d", pod.ID, meta.Name, meta.Attempt))
	if err != nil {
		return "", fmt.Errorf("container %s: %w", meta.Name, err)
	}
	defer unlock()

	if existing, ok := c.attempt(pod.ID, meta); ok {
		if existing.State == life.Created && !existing.Discarded {
			return existing.ID, nil
		}

		const format = "container %s attempt %d exists in pod sandbox %s as %s"
		return "", fmt.Errorf(format, meta.Name, meta.Attempt, pod.ID, existing.ID)
	}

	// The sandbox may have been stopped while this call waited.
	if err := c.checkReady(pod.ID); err != nil {
		return "", fmt.Errorf("container %s in %s: %w", meta.Name, pod.ID, err)
	}

	making, err := c.prepare(pod, config)
	if err == nil {
		err = making.build(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("container %s: %w", meta.Name, err)
	}

	return making.ID, nil
}

// attempt returns the container of this name and attempt in a sandbox, if there is one.
func (c *Service) attempt(sandboxID string, meta *runtimeapi.ContainerMetadata) (Record, bool) {
	for _, r := range c.Of(sandboxID) {
		m := r.config.GetMetadata()
		if m.GetName() == meta.Name && m.GetAttempt() == meta.Attempt {
			return r, true
		}
	}
	return Record{}, false
}

// prepare finds out all that can be known of a container without changing anything.
func (c *Service) prepare(pod sandbox.Record, config *runtimeapi.ContainerConfig) (*creation, error) {
	raw, err := proto.Marshal(config)
	if err != nil {
		return nil, err
	}

	if err := checkUsers(c.cfg.Sandboxes.Users(pod), pod, config); err != nil {
		return nil, err
	}

	img, err := c.image(config.GetImage().GetImage())
	if err != nil {
		return nil, err
	}

	handler, err := c.cfg.Handlers.Find(pod.Handler)
	if err != nil {
		return nil, err
	}

	r := Record{
		ID:         record.NewID(),
		Sandbox:    pod.ID,
		Raw:        raw,
		Created:    time.Now(),
		StopSignal: spec.StopSignal(config.GetStopSignal(), img.Config.Config.StopSignal),
		config:     proto.CloneOf(config),
	}

	r.ImageMounts = bundle.MountIDs(r.ID, config)
	r.setImage(img)
	if logs := pod.PodConfig().GetLogDirectory(); logs != "" && config.LogPath != "" {
		r.LogPath = filepath.Join(logs, config.LogPath)
	}

	return &creation{
		Record:     r,
		containers: c,
		pod:        pod,
		image:      img,
		handler:    handler,
	}, nil
}

// checkUsers refuses a container that is to have another user namespace than its pod, or the processes of
// the host in that of the pod, whose root has no rights there.
func checkUsers(has *namespace.Users, pod sandbox.Record, config *runtimeapi.ContainerConfig) error {
	options := config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if has != nil && options.GetPid() == runtimeapi.NamespaceMode_NODE {
		return fmt.Errorf("%w: user namespace: the container has the host's PID namespace", ErrInvalid)
	}

	// A client that says nothing has it from the pod.
	asked := options.GetUsernsOptions()
	if asked == nil {
		return nil
	}

	wants, err := spec.UsersOf(asked)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if wants != nil && has != nil {
		wants.Path = has.Path
	}
	if !reflect.DeepEqual(wants, has) {
		return fmt.Errorf("%w: user namespace: it is not that of pod sandbox %s", ErrInvalid, pod.ID)
	}

	return nil
}

// image returns an image that a container can run.
func (c *Service) image(name string) (image.Image, error) {
	img, err := c.cfg.Images.Get(name)
	if err == nil && img.Artifact {
		err = fmt.Errorf("image %s is an OCI artifact, to be mounted, not run", name)
	}
	return img, err
}

// checkReady returns an error if a sandbox does not take containers.
func (c *Service) checkReady(sandboxID string) error {
	pod, err := c.cfg.Sandboxes.Get(sandboxID)
	if err == nil && pod.State != life.Ready {
		err = sandbox.ErrNotReady
	}
	return err
}

// undo destroys a container that was not finished. One that cannot be destroyed now is listed as exited, so
// that it is removed with its pod.
func (c *Service) undo(ctx context.Context, r Record) error {
	err := c.destroy(ctx, r)
	if err == nil {
		return nil
	}
	r.Complete = true
	r.end(life.NotUndone(err, time.Now()))
	return errors.Join(err, c.records.Put(r.ID, r))
}
