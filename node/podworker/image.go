package podworker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/imageaccess"
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
	if err != nil && !p.wants(name, c.Image) {
		// the spec was changed meanwhile: that failure holds nothing back
		return context.Canceled
	}

	if err != nil {
		return err
	}

	w.keepImage(p, c, have)
	return nil
}

// ensureImage returns the image that a container wants, pulled if need be, when the pod may use it.
func (w *Worker) ensureImage(ctx context.Context, pod *v1.Pod, c *v1.Container) (*cri.Image, error) {
	name, err := tagged(c.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", c.Image, err)
		w.events.Pod(pod, c.Name, v1.EventTypeWarning, "InspectFailed", message)
		return nil, fail("InvalidImageName", errors.New(message))
	}

	spec := &cri.ImageSpec{Image: name, UserSpecifiedImage: c.Image, Annotations: pod.Annotations}

	// one pull for all containers that wait for it
	unlock, err := w.images.Lock(ctx, c.Image)
	if err != nil {
		return nil, err
	}
	defer unlock()

	have, err := w.inspect(ctx, c, spec)
	if err != nil {
		return nil, err
	}

	usable := false
	if have != nil && c.ImagePullPolicy != v1.PullAlways {
		secrets := func() ([]imageaccess.Secret, error) { return w.secrets(ctx, pod, name) }
		if usable, err = w.access.Granted(c.Image, have, secrets); err != nil {
			return nil, err
		}
	}

	switch {
	case usable:
		message := fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod",
			c.Image)
		w.events.Pod(pod, c.Name, v1.EventTypeNormal, "Pulled", message)
		return have, nil

	case c.ImagePullPolicy == v1.PullNever:
		// The same words whether it is there or not: that is nobody's business.
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
		w.events.Pod(pod, c.Name, v1.EventTypeWarning, "ErrImageNeverPull", message)
		return nil, fail("ErrImageNeverPull", errors.New(message))
	}

	return w.fetch(ctx, pod, c, spec, have)
}

func (w *Worker) inspect(ctx context.Context, c *v1.Container, spec *cri.ImageSpec) (*cri.Image, error) {
	have, err := w.runtime.Image(ctx, spec)
	if err != nil {
		return nil, fail("ImageInspectError", fmt.Errorf("Failed to inspect image %q: %w", c.Image, err))
	}
	return have, nil
}

// tagged is an image's name with the tag latest if it has neither tag nor digest, so that no runtime takes it
// for the beginning of an ID.
func tagged(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image name %q: %w", image, err)
	}
	if reference.IsNameOnly(named) {
		return image + ":latest", nil
	}
	return image, nil
}

// fetch pulls an image and records with whose credentials. have is what has its name already, or nil.
func (w *Worker) fetch(
	ctx context.Context, pod *v1.Pod, c *v1.Container, spec *cri.ImageSpec, have *cri.Image,
) (*cri.Image, error) {
	if w.pulls != nil {
		select {
		case w.pulls <- struct{}{}:
			defer func() { <-w.pulls }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}

	if err := w.access.Pulling(c.Image, have); err != nil {
		return nil, fail("ErrImagePull", err)
	}

	with, err := w.pullAny(ctx, pod, c, spec)
	if err != nil {
		w.access.Failed(c.Image, maybePulled(ctx, err))
		return nil, err
	}

	have, err = w.inspect(ctx, c, spec)
	if err == nil && have == nil {
		err = fail("ImageInspectError", fmt.Errorf("image %q is not there after it was pulled", c.Image))
	}

	if err != nil {
		w.access.Failed(c.Image, true)
		return nil, err
	}

	// Without a record the intent stays: the next pod shows anew that it may.
	if err := w.access.Pulled(c.Image, have.Id, with); err != nil {
		w.log.Warn("record of image pulls", "image", c.Image, "err", err)
	}

	return have, nil
}

// maybePulled reports whether a pull that failed may have brought the image nevertheless: nobody waited for
// its end.
func maybePulled(ctx context.Context, err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return true
	}
	return ctx.Err() != nil
}

// pullAny pulls with the first credentials that do, or with none where none fit, as kubelet, and returns the
// secret that they are from.
func (w *Worker) pullAny(
	ctx context.Context, pod *v1.Pod, c *v1.Container, spec *cri.ImageSpec,
) (*imageaccess.Secret, error) {
	w.events.Pod(pod, c.Name, v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	auths, err := w.credentials(ctx, pod, spec.Image)
	if err != nil {
		w.events.Pod(pod, "", v1.EventTypeWarning, "FailedToRetrieveImagePullSecret", err.Error())
	}

	config, err := criconfig.Sandbox(w.Node, pod, 0, w.cgroups.Parent(pod))
	if err != nil {
		return nil, err
	}

	if len(auths) == 0 {
		auths = []pullauth.Credentials{{}}
	}

	began := time.Now()
	for _, auth := range auths {
		if _, err = w.runtime.Pull(ctx, spec, auth.AuthConfig, config); err == nil {
			took := time.Since(began).Round(time.Millisecond)
			message := fmt.Sprintf("Successfully pulled image %q in %s (%s including waiting)",
				c.Image, took, took)
			w.events.Pod(pod, c.Name, v1.EventTypeNormal, "Pulled", message)
			return secretOf(auth), nil
		}
	}

	if ctx.Err() != nil {
		return nil, ctx.Err()
	}

	reason := "ErrImagePull"
	if strings.Contains(err.Error(), "invalid reference format") {
		reason = "InvalidImageName"
	}

	w.events.Pod(
		pod,
		c.Name,
		v1.EventTypeWarning,
		"Failed",
		fmt.Sprintf("Failed to pull image %q: %v", c.Image, err),
	)

	return nil, fail(reason, err)
}

// credentials are those of the pod's pull secrets and of the node that fit the image, the most specific
// first.
func (w *Worker) credentials(ctx context.Context, pod *v1.Pod, image string) ([]pullauth.Credentials, error) {
	var files []pullauth.File
	var missing []error
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, err := w.objects.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			missing = append(missing, fmt.Errorf("pull secret %s/%s: %w", pod.Namespace, ref.Name, err))
			continue
		}

		for _, key := range []string{v1.DockerConfigJsonKey, v1.DockerConfigKey} {
			files = append(files, pullauth.File{Data: secret.Data[key], Secret: secret})
		}
	}

	if w.PullSecrets != nil {
		own, err := w.PullSecrets()
		if err != nil {
			missing = append(missing, err)
		}

		files = append(files, pullauth.File{Data: own})
	}

	return pullauth.For(image, files...), errors.Join(missing...)
}

// secrets are the pod's own for the image. Those that are missing open nothing.
func (w *Worker) secrets(ctx context.Context, pod *v1.Pod, image string) ([]imageaccess.Secret, error) {
	auths, _ := w.credentials(ctx, pod, image)
	var out []imageaccess.Secret
	for _, auth := range auths {
		if s := secretOf(auth); s != nil {
			out = append(out, *s)
		}
	}
	return out, ctx.Err()
}

func secretOf(c pullauth.Credentials) *imageaccess.Secret {
	if c.Secret == nil {
		return nil
	}
	return &imageaccess.Secret{
		UID:       string(c.Secret.UID),
		Namespace: c.Secret.Namespace,
		Name:      c.Secret.Name,
		Hash:      c.Hash,
	}
}

// pullVolumes makes sure of the images that a container mounts as volumes, and has the mounts name the very
// images that it may use.
func (w *Worker) pullVolumes(ctx context.Context, pod *v1.Pod, c *v1.Container, mounts []volume.Mount) error {
	for i := range mounts {
		m := &mounts[i]
		if m.Image == nil {
			continue
		}

		// events and errors are the container's
		as := c.DeepCopy()
		as.Image, as.ImagePullPolicy = m.Image.Reference, m.Image.PullPolicy
		have, err := w.ensureImage(ctx, pod, as)
		if err != nil {
			return err
		}

		m.ImageID = have.Id
	}

	return nil
}

// wants reports whether the spec, as it is by now, has this image for a container.
func (p *pod) wants(container, image string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := findSpec(p.spec, container)
	return c != nil && c.Image == image
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
