package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/spec"
)

// Start starts a created container. A container that runs is success.
func (c *Containers) Start(ctx context.Context, id string) error {
	r, unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	switch r.State {
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return nil
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return fmt.Errorf("start container %s: it has exited", r.ID)
	}

	if r.Discarded {
		return fmt.Errorf("start container %s: it is being removed", r.ID)
	}
	if r.Refused != "" {
		return c.failStart(r.ID, errors.New(r.Refused))
	}

	if err := c.cfg.Monitor.Start(ctx, r.ID); errors.Is(err, monitor.ErrRefused) {
		return c.failStart(r.ID, err)
	} else if err != nil {
		return fmt.Errorf("start container %s: %w", r.ID, err)
	}

	r, err = c.change(r.ID, func(r *Record) {
		r.Started = time.Now()

		// it may have ended already
		if r.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			r.State = runtimeapi.ContainerState_CONTAINER_RUNNING
		} else if r.Finished.Before(r.Started) {
			r.Started = r.Finished
		}
	})
	if err != nil {
		return err
	}

	c.notify(Event{
		ID:      r.ID,
		Sandbox: r.Sandbox,
		Type:    runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT,
		At:      r.Started,
	})

	return nil
}

// startErrorCode is the exit code of a container that could not be started, as with Docker and containerd.
const startErrorCode = 128

// failStart ends a container whose program does not run and never will. What is left of its first process
// is killed.
func (c *Containers) failStart(id string, cause error) error {
	r, err := c.change(id, func(r *Record) {
		// it had ended before, and this is why
		if r.Reason == "OOMKilled" {
			return
		}

		r.State, r.Finished = runtimeapi.ContainerState_CONTAINER_EXITED, time.Now()
		r.Code, r.Reason, r.Message = startErrorCode, "StartError", cause.Error()
	})
	if err != nil {
		return errors.Join(fmt.Errorf("start container %s: %w", id, cause), err)
	}

	c.mu.Lock()
	done := c.done[id]
	delete(c.done, id)
	c.mu.Unlock()
	if done != nil {
		close(done)
	}
	if err := c.cfg.Monitor.Kill(id, unix.SIGKILL); err != nil && !errors.Is(err, monitor.ErrNotFound) {
		c.cfg.Log.Warn("container that did not start is not killed", "container", id, "err", err)
	}

	c.notify(Event{
		ID:      id,
		Sandbox: r.Sandbox,
		Type:    runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
		At:      r.Finished,
	})

	return fmt.Errorf("start container %s: %w", id, cause)
}

// killWait bounds how long a SIGKILL may take to end a container (uninterruptible sleep).
const killWait = 2 * time.Minute

// Stop asks the container to end, and kills it after grace. What has ended or is not there is success.
func (c *Containers) Stop(ctx context.Context, id string, grace time.Duration) error {
	r, err := c.Get(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}

	c.mu.RLock()
	done, state := c.done[r.ID], c.all[r.ID].State
	c.mu.RUnlock()
	if done == nil || state == runtimeapi.ContainerState_CONTAINER_EXITED {
		return nil
	}

	if grace > 0 && state == runtimeapi.ContainerState_CONTAINER_RUNNING {
		if err := c.cfg.Monitor.Kill(r.ID, c.stopSignal(r)); err != nil {
			return err
		}
		if waited(ctx, done, grace) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stop container %s: %w", r.ID, context.Cause(ctx))
		}
	}

	if err := c.cfg.Monitor.Kill(r.ID, unix.SIGKILL); err != nil {
		return err
	}
	if !waited(ctx, done, killWait) {
		return fmt.Errorf("stop container %s: it does not end after SIGKILL", r.ID)
	}

	return nil
}

// stopSignal is what asks a container to end. A record that an earlier version wrote does not say it.
func (c *Containers) stopSignal(r Record) unix.Signal {
	if r.StopSignal != 0 {
		return r.StopSignal
	}
	ofImage := ""
	if img, err := c.cfg.Images.Get(r.ImageID); err == nil {
		ofImage = img.Config.Config.StopSignal
	}
	return spec.StopSignal(r.config.GetStopSignal(), ofImage)
}

func waited(ctx context.Context, done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// Remove kills the container if need be and forgets it. Its log stays. What is not there is success.
func (c *Containers) Remove(ctx context.Context, id string) error {
	r, unlock, err := c.lock(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	// Whoever sees it meanwhile, or after a removal that was cut off, must not take its killed init for a
	// program that failed.
	if r.State == runtimeapi.ContainerState_CONTAINER_CREATED && !r.Discarded {
		if r, err = c.change(r.ID, func(r *Record) { r.Discarded = true }); err != nil {
			return err
		}
	}

	if err := c.destroy(ctx, r); err != nil {
		return fmt.Errorf("remove container %s: %w", r.ID, err)
	}

	c.notify(Event{
		ID:      r.ID,
		Sandbox: r.Sandbox,
		Type:    runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT,
		At:      time.Now(),
	})

	return nil
}

// destroy takes everything back; the record goes last, so that a killed Remove is finished by the next one.
func (c *Containers) destroy(ctx context.Context, r Record) error {
	if err := c.cfg.Monitor.Delete(ctx, r.ID); err != nil {
		return err
	}

	for _, id := range append([]string{r.ID}, r.Volumes...) {
		if err := c.cfg.Rootfs.Release(ctx, id); err != nil {
			return err
		}
	}

	if err := removeDir(c.dir(r.ID)); err != nil {
		return err
	}
	if err := c.store.Delete(r.ID); err != nil {
		return err
	}

	c.mu.Lock()
	done := c.done[r.ID]
	delete(c.done, r.ID)
	delete(c.all, r.ID)
	c.mu.Unlock()
	if done != nil {
		close(done)
	}

	return nil
}

// Update changes the resources of a container that lives.
func (c *Containers) Update(
	ctx context.Context,
	id string,
	resources *runtimeapi.LinuxContainerResources,
) error {
	r, unlock, err := c.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	if r.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		return fmt.Errorf("update container %s: %w", r.ID, ErrNotRunning)
	}
	if resources == nil {
		return nil
	}
	if err := c.cfg.Monitor.Update(ctx, r.ID, spec.Resources(resources, c.cfg.Host.CgroupV2)); err != nil {
		return fmt.Errorf("update container %s: %w", r.ID, err)
	}

	_, err = c.change(r.ID, func(r *Record) {
		merged := &runtimeapi.LinuxContainerResources{}
		if old := r.Resources; old != nil {
			proto.Merge(merged, old)
		} else if old := r.config.GetLinux().GetResources(); old != nil {
			proto.Merge(merged, old)
		}

		proto.Merge(merged, resources)
		r.Resources = merged
	})

	return err
}

// ReopenLog makes the monitor open the log file anew.
func (c *Containers) ReopenLog(ctx context.Context, id string) error {
	r, err := c.Get(id)
	if err != nil {
		return err
	}
	if r.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("reopen log of container %s: %w", r.ID, ErrNotRunning)
	}
	return c.cfg.Monitor.ReopenLog(ctx, r.ID)
}

func (c *Containers) lock(ctx context.Context, id string) (Record, func(), error) {
	r, err := c.Get(id)
	if err != nil {
		return r, nil, err
	}

	unlock, err := c.locks.Lock(ctx, r.ID)
	if err != nil {
		return r, nil, err
	}

	if r, err = c.Get(r.ID); err != nil {
		unlock()
		return r, nil, err
	}

	return r, unlock, nil
}
