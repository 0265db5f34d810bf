package podworker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/pullauth"
	"github.com/trivet-node/trivet/node/volume"
)

// pull makes sure of a container's image by its pull policy.
func (w *Worker) pull(ctx context.Context, p *pod, pod *v1.Pod, name string) error {
	c := findSpec(pod, name)
	if c == nil {
		return fmt.Errorf("container %s is not in the spec", name)
	}
	have, err := w.ensureImage(ctx, pod, c)
	if err != nil {
		return err
	}
	w.keepImage(p, c, have)
	return nil
}

func (w *Worker) ensureImage(ctx context.Context, pod *v1.Pod, c *v1.Container) (*cri.Image, error) {
	spec := &cri.ImageSpec{Image: c.Image, UserSpecifiedImage: c.Image}
	unlock, err := w.images.Lock(ctx, c.Image) // one pull for all containers that wait for it
	if err != nil {
		return nil, err
	}
	defer unlock()
	have, err := w.runtime.Image(ctx, spec)
	if err != nil {
		return nil, fail("ImageInspectError", fmt.Errorf("Failed to inspect image %q: %w", c.Image, err))
	}
	switch {
	case have != nil && c.ImagePullPolicy != v1.PullAlways:
		w.events.Pod(pod, c.Name, v1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", c.Image))
		return have, nil
	case have == nil && c.ImagePullPolicy == v1.PullNever:
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
		w.events.Pod(pod, c.Name, v1.EventTypeWarning, "ErrImageNeverPull", message)
		return nil, fail("ErrImageNeverPull", errors.New(message))
	}
	if err := w.fetch(ctx, pod, c, spec); err != nil {
		return nil, err
	}
	if have, err = w.runtime.Image(ctx, spec); err != nil {
		return nil, fail("ImageInspectError", fmt.Errorf("Failed to inspect image %q: %w", c.Image, err))
	}
	if have == nil {
		return nil, fail("ImageInspectError", fmt.Errorf("image %q is not there after it was pulled", c.Image))
	}
	return have, nil
}

func (w *Worker) fetch(ctx context.Context, pod *v1.Pod, c *v1.Container, spec *cri.ImageSpec) error {
	if w.pulls != nil {
		select {
		case w.pulls <- struct{}{}:
			defer func() { <-w.pulls }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.events.Pod(pod, c.Name, v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	auths, err := w.credentials(ctx, pod, c.Image)
	if err != nil {
		w.events.Pod(pod, "", v1.EventTypeWarning, "FailedToRetrieveImagePullSecret", err.Error())
	}
	config, err := criconfig.Sandbox(w.Node, pod, 0, w.cgroups.Parent(pod))
	if err != nil {
		return err
	}
	began := time.Now()
	for _, auth := range append(auths, nil) {
		if _, err = w.runtime.Pull(ctx, spec, auth, config); err == nil {
			took := time.Since(began).Round(time.Millisecond)
			w.events.Pod(pod, c.Name, v1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s (%s including waiting)", c.Image, took, took))
			return nil
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	reason := "ErrImagePull"
	if strings.Contains(err.Error(), "invalid reference format") {
		reason = "InvalidImageName"
	}
	w.events.Pod(pod, c.Name, v1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", c.Image, err))
	return fail(reason, err)
}

// credentials are those of the pod's pull secrets and of the node that fit the image, the most specific first.
func (w *Worker) credentials(ctx context.Context, pod *v1.Pod, image string) ([]*cri.AuthConfig, error) {
	var files [][]byte
	var missing []error
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, err := w.objects.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			missing = append(missing, fmt.Errorf("pull secret %s/%s: %w", pod.Namespace, ref.Name, err))
			continue
		}
		files = append(files, secret.Data[v1.DockerConfigJsonKey], secret.Data[v1.DockerConfigKey])
	}
	if w.PullSecrets != nil {
		own, err := w.PullSecrets()
		if err != nil {
			missing = append(missing, err)
		}
		files = append(files, own)
	}
	return pullauth.For(image, files...), errors.Join(missing...)
}

// pullVolumes makes sure of the images that a container mounts as volumes.
func (w *Worker) pullVolumes(ctx context.Context, pod *v1.Pod, c *v1.Container, mounts []volume.Mount) error {
	for _, m := range mounts {
		if m.Image == nil {
			continue
		}
		as := c.DeepCopy() // events and errors are the container's
		as.Image, as.ImagePullPolicy = m.Image.Reference, m.Image.PullPolicy
		if _, err := w.ensureImage(ctx, pod, as); err != nil {
			return err
		}
	}
	return nil
}

func (w *Worker) keepImage(p *pod, c *v1.Container, have *cri.Image) {
	out := image{name: c.Image, ref: have.Id}
	if have.Uid != nil {
		out.user.UID = new(have.Uid.Value)
	}
	out.user.Name = have.Username
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images[c.Name] = out
}
