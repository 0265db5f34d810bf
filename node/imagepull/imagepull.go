// Package imagepull brings the images of containers to the node, by pull policy, credentials and what the
// node's records of pulls allow. It sends the events of a pull; its errors have kubelet's reasons.
package imagepull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/distribution/reference"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/node/imageaccess"
	"github.com/trivet-node/trivet/node/pullauth"
	"github.com/trivet-node/trivet/node/reason"
	"github.com/trivet-node/trivet/node/runtime"
)

// Runtime is the container runtime, which keeps the images (runtime.Client).
type Runtime interface {
	// Image returns an image, nil if the runtime does not have it.
	Image(ctx context.Context, spec runtime.ImageSpec) (*runtime.Image, error)
	// Pull fetches an image. A nil auth pulls anonymously.
	Pull(
		ctx context.Context,
		spec runtime.ImageSpec,
		auth *runtime.Auth,
		sandbox *runtime.SandboxConfig,
	) (string, error)
}

// Secrets are the API's (objects.Cache).
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
}

// Events sends Events about pods (event.Recorder).
type Events interface {
	Pod(pod *v1.Pod, container, kind, reason, message string)
}

// Keeper keeps images on the node that pods are about to use (imagegc.Collector).
type Keeper interface {
	// Hold keeps an image for a pod. If the image is just being removed it returns a channel that is closed
	// when it is gone, nil otherwise.
	Hold(id string, pod types.UID) (removed <-chan struct{})
}

// Config is what a Puller works with.
type Config struct {
	Runtime Runtime
	Secrets Secrets

	// Access decides which pod may use an image that is on the node.
	Access *imageaccess.Access

	// Keeper is told which images pods were given; nil: no image is ever removed.
	Keeper Keeper
	Events Events
	Log    *slog.Logger

	// NodeSecrets is the node's own docker configuration as it is now; nil: it has none.
	NodeSecrets func() ([]byte, error)

	// Sandbox is the configuration of a pod's sandbox, which the runtime gets with a pull.
	Sandbox func(pod *v1.Pod) (*runtime.SandboxConfig, error)

	// Parallel is the number of pulls at once; 0: no limit.
	Parallel int

	// Pulled is told about each image that was pulled, its size in bytes, and how long that took with the
	// wait for other pulls. It may be nil.
	Pulled func(bytes uint64, took time.Duration)
}

// Puller pulls the images of one node. All methods may be called at the same time.
type Puller struct {
	cfg Config

	// names locks an image, by its name as the spec has it, while Ensure works on it.
	names keylock.Locks[string]

	// slots bounds the pulls that run at the same time; nil is no limit.
	slots chan struct{}
}

// New returns a puller.
func New(cfg Config) *Puller {
	p := &Puller{cfg: cfg}
	if cfg.Parallel > 0 {
		p.slots = make(chan struct{}, cfg.Parallel)
	}
	return p
}

// Ensure returns the image of a container of a pod, pulled if need be, provided that the pod may use it.
// Containers that wait for the same image share one pull. Errors have a reason, unless ctx has ended.
func (p *Puller) Ensure(ctx context.Context, pod *v1.Pod, c *v1.Container) (*runtime.Image, error) {
	name, err := tagged(c.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", c.Image, err)
		return nil, said("InvalidImageName", "InspectFailed", message)
	}

	unlock, err := p.names.Lock(ctx, c.Image)
	if err != nil {
		return nil, err
	}
	defer unlock()

	w := wanted{
		pod:       pod,
		container: c,
		spec: runtime.ImageSpec{
			Image:              name,
			UserSpecifiedImage: c.Image,
			Annotations:        pod.Annotations,
		},
	}

	return p.kept(ctx, w)
}

// kept returns the image when it is sure to stay. One that is removed in this moment is pulled again.
func (p *Puller) kept(ctx context.Context, w wanted) (*runtime.Image, error) {
	for {
		have, err := p.ensure(ctx, w)
		if err != nil || p.cfg.Keeper == nil {
			return have, err
		}

		removed := p.cfg.Keeper.Hold(have.ID, w.pod.UID)
		if removed == nil {
			return have, nil
		}

		select {
		case <-removed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ensure returns the image, pulled if need be.
func (p *Puller) ensure(ctx context.Context, w wanted) (*runtime.Image, error) {
	have, err := p.inspect(ctx, w)
	if err != nil {
		return nil, err
	}

	c := w.container
	granted, err := p.granted(ctx, w, have)
	switch {
	case err != nil:
		return nil, err
	case granted:
		p.event(w, v1.EventTypeNormal, "Pulled",
			fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod",
				c.Image))
		return have, nil

	case c.ImagePullPolicy == v1.PullNever:
		// The same words whether the image is there or not: the pod must not learn that.
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
		return nil, said("ErrImageNeverPull", "ErrImageNeverPull", message)
	}

	return p.fetch(ctx, w, have)
}

// wanted is the image of a container.
type wanted struct {
	pod       *v1.Pod
	container *v1.Container
	spec      runtime.ImageSpec
}

// said returns an error whose message is also that of its event.
func said(why, event, message string) error {
	return reason.WithEvent(why, reason.Event{Reason: event, Message: message}, errors.New(message))
}

// tagged returns an image's name, with the tag latest if it has neither tag nor digest: a runtime could take
// the bare name for the beginning of an ID.
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

func (p *Puller) event(w wanted, kind, reason, message string) {
	p.cfg.Events.Pod(w.pod, w.container.Name, kind, reason, message)
}

// inspect returns the image that the runtime has, nil if it has none.
func (p *Puller) inspect(ctx context.Context, w wanted) (*runtime.Image, error) {
	have, err := p.cfg.Runtime.Image(ctx, w.spec)
	if err != nil {
		return nil, reason.New("ImageInspectError",
			fmt.Errorf("Failed to inspect image %q: %w", w.container.Image, err))
	}
	return have, nil
}

// granted reports whether the pod may use an image that is there without a pull.
func (p *Puller) granted(ctx context.Context, w wanted, have *runtime.Image) (bool, error) {
	if have == nil || w.container.ImagePullPolicy == v1.PullAlways {
		return false, nil
	}
	return p.cfg.Access.Granted(w.container.Image, have, func() ([]imageaccess.Secret, error) {
		return p.ownSecrets(ctx, w)
	})
}

// fetch pulls an image and records with whose credentials. have is the image that has its name already, or
// nil.
func (p *Puller) fetch(ctx context.Context, w wanted, have *runtime.Image) (*runtime.Image, error) {
	began := time.Now()
	if p.slots != nil {
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}

	name := w.container.Image
	if err := p.cfg.Access.Pulling(name, have); err != nil {
		return nil, reason.New("ErrImagePull", err)
	}

	with, err := p.pull(ctx, w)
	if err != nil {
		p.cfg.Access.Failed(name, maybePulled(ctx, err))
		return nil, err
	}

	have, err = p.inspect(ctx, w)
	if err == nil && have == nil {
		err = reason.New("ImageInspectError", fmt.Errorf("image %q is not there after it was pulled", name))
	}

	if err != nil {
		p.cfg.Access.Failed(name, true)
		return nil, err
	}

	// Without a record the intent stays: the next pod must show again that it may use the image.
	if err := p.cfg.Access.Pulled(name, have.ID, with); err != nil {
		p.cfg.Log.Warn("record of image pulls", "image", name, "err", err)
	}

	if p.cfg.Pulled != nil {
		p.cfg.Pulled(have.Size, time.Since(began))
	}
	return have, nil
}

// maybePulled reports whether a pull that failed may have brought the image nevertheless, because its end in
// the runtime was not seen.
func maybePulled(ctx context.Context, err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable:
		return true
	}
	return ctx.Err() != nil
}

// pull pulls with the first credentials that the registry accepts, or without any where none fit the image,
// as kubelet does. It returns the secret that they are from, nil for none or the node's.
func (p *Puller) pull(ctx context.Context, w wanted) (*imageaccess.Secret, error) {
	name := w.container.Image
	p.event(w, v1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", name))
	auths, err := p.credentials(ctx, w)
	if err != nil {
		p.cfg.Events.Pod(w.pod, "", v1.EventTypeWarning, "FailedToRetrieveImagePullSecret", err.Error())
	}

	if len(auths) == 0 {
		anonymous := pullauth.Credentials{}
		auths = []pullauth.Credentials{anonymous}
	}

	sandbox, err := p.cfg.Sandbox(w.pod)
	if err != nil {
		return nil, err
	}

	began := time.Now()
	for _, auth := range auths {
		if _, err = p.cfg.Runtime.Pull(ctx, w.spec, auth.Auth, sandbox); err == nil {
			took := time.Since(began).Round(time.Millisecond)
			p.event(w, v1.EventTypeNormal, "Pulled",
				fmt.Sprintf("Successfully pulled image %q in %s (%s including waiting)", name, took, took))
			return secretOf(auth), nil
		}
	}

	if ctx.Err() != nil {
		return nil, ctx.Err()
	}

	why := "ErrImagePull"
	if strings.Contains(err.Error(), "invalid reference format") {
		why = "InvalidImageName"
	}

	event := reason.Event{Reason: "Failed", Message: fmt.Sprintf("Failed to pull image %q: %v", name, err)}
	return nil, reason.WithEvent(why, event, err)
}

// credentials returns those of the pod's pull secrets and of the node that fit the image, the most specific
// first, and with an error what could not be read.
func (p *Puller) credentials(ctx context.Context, w wanted) ([]pullauth.Credentials, error) {
	var files []pullauth.File
	var missing []error
	for _, ref := range w.pod.Spec.ImagePullSecrets {
		secret, err := p.cfg.Secrets.Secret(ctx, w.pod.Namespace, ref.Name)
		if err != nil {
			missing = append(missing, fmt.Errorf("pull secret %s/%s: %w", w.pod.Namespace, ref.Name, err))
			continue
		}

		for _, key := range []string{v1.DockerConfigJsonKey, v1.DockerConfigKey} {
			files = append(files, pullauth.File{Data: secret.Data[key], Secret: secret})
		}
	}

	if p.cfg.NodeSecrets != nil {
		own, err := p.cfg.NodeSecrets()
		if err != nil {
			missing = append(missing, err)
		}

		files = append(files, pullauth.File{Data: own})
	}

	return pullauth.For(w.spec.Image, files...), errors.Join(missing...)
}

// ownSecrets returns the pod's own secrets for the image, without those that cannot be read.
func (p *Puller) ownSecrets(ctx context.Context, w wanted) ([]imageaccess.Secret, error) {
	auths, _ := p.credentials(ctx, w)
	var out []imageaccess.Secret
	for _, auth := range auths {
		if s := secretOf(auth); s != nil {
			out = append(out, *s)
		}
	}
	return out, ctx.Err()
}

// secretOf identifies the secret that credentials are from, nil for the node's.
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
