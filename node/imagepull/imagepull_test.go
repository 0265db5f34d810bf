package imagepull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/imageaccess"
	"github.com/trivet-node/trivet/node/reason"
	"github.com/trivet-node/trivet/node/runtime"
)

const app = "reg.example.com/team/app:1"

// node is a runtime with images, the API's secrets, and the events that were sent.
type node struct {
	// mu guards what follows.
	mu     sync.Mutex
	images map[string]*runtime.Image

	// secrets are those of the API, by NAMESPACE/NAME.
	secrets map[string]*v1.Secret

	// password is what the registry wants; empty: it wants none.
	password string

	// fail are the errors of methods, by name.
	fail map[string]error

	// pulls are the passwords with which images were pulled, events what was sent as "REASON message".
	pulls  []string
	events []string

	// running are the pulls that run, most is how many ran at the same time. They wait until hold is closed,
	// unless it is nil.
	running int
	most    int
	hold    chan struct{}
}

// FailOn has a method fail from now on; nil: it works again.
func (n *node) FailOn(method string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail[method] = err
}

func (n *node) Image(_ context.Context, spec runtime.ImageSpec) (*runtime.Image, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.images[spec.Image], n.fail["Image"]
}

func (n *node) Pull(
	ctx context.Context,
	spec runtime.ImageSpec,
	auth *runtime.Auth,
	_ *runtime.SandboxConfig,
) (string, error) {
	n.mu.Lock()
	n.running++
	n.most = max(n.most, n.running)
	hold := n.hold
	n.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}

	n.mu.Lock()
	defer n.mu.Unlock()

	n.running--
	if auth == nil {
		auth = &runtime.Auth{}
	}

	n.pulls = append(n.pulls, auth.Password)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case n.fail["Pull"] != nil:
		return "", n.fail["Pull"]
	case n.password != "" && auth.Password != n.password:
		return "", errors.New("unauthorized")
	}

	n.images[spec.Image] = imageOf(spec.Image)
	return "id-" + spec.Image, nil
}

func imageOf(name string) *runtime.Image {
	return &runtime.Image{ID: "id-" + name, RepoTags: []string{name}}
}

func (n *node) Secret(_ context.Context, namespace, name string) (*v1.Secret, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.secrets[namespace+"/"+name]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("secret %q not found", name)
}

func (n *node) Pod(_ *v1.Pod, _, _, reason, message string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, reason+" "+message)
}

// reasons of the events so far.
func (n *node) reasons() (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		reason, _, _ := strings.Cut(e, " ")
		out = append(out, reason)
	}
	return out
}

func newPuller(t *testing.T, mod func(*Config)) (*Puller, *node) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	access, err := imageaccess.Open(imageaccess.Config{RootDir: t.TempDir(), Log: log})
	if err != nil {
		t.Fatal(err)
	}

	n := &node{
		images:  map[string]*runtime.Image{},
		secrets: map[string]*v1.Secret{},
		fail:    map[string]error{},
	}

	cfg := Config{
		Runtime: n,
		Secrets: n,
		Access:  access,
		Events:  n,
		Log:     log,
		Sandbox: func(*v1.Pod) (*runtime.SandboxConfig, error) { return &runtime.SandboxConfig{}, nil },
	}
	if mod != nil {
		mod(&cfg)
	}

	return New(cfg), n
}

// dockerConfig is a docker configuration for reg.example.com and what is below it.
func dockerConfig(password string) []byte {
	const text = `{"auths": {"reg.example.com": {"username": "u", "password": %q}}}`
	return fmt.Appendf(nil, text, password)
}

// give gives a namespace a pull secret with the password.
func (n *node) give(namespace, password string) {
	n.secrets[namespace+"/pull"] = &v1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "pull", UID: types.UID(namespace)},
		Data:       map[string][]byte{v1.DockerConfigJsonKey: dockerConfig(password)},
	}
}

func podIn(namespace string) *v1.Pod {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p"}}
	pod.Spec.ImagePullSecrets = []v1.LocalObjectReference{{Name: "pull"}}
	return pod
}

func container(image string, policy v1.PullPolicy) *v1.Container {
	return &v1.Container{Name: "c", Image: image, ImagePullPolicy: policy}
}

func TestPullPolicies(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy v1.PullPolicy
		there  bool
		pulls  int
		reason string // of the error; empty: none
		events []string
	}{
		{"IfNotPresent, not there", v1.PullIfNotPresent, false, 1, "", []string{"Pulling", "Pulled"}},
		{"IfNotPresent, there", v1.PullIfNotPresent, true, 0, "", []string{"Pulled"}},
		{"Always, there", v1.PullAlways, true, 1, "", []string{"Pulling", "Pulled"}},
		{"Never, there", v1.PullNever, true, 0, "", []string{"Pulled"}},
		{"Never, not there", v1.PullNever, false, 0, "ErrImageNeverPull", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, n := newPuller(t, nil)
			if c.there {
				n.images[app] = imageOf(app)
			}

			have, err := p.Ensure(t.Context(), &v1.Pod{}, container(app, c.policy))
			if reason.Of(err) != c.reason || (err == nil) != (have != nil && have.ID == "id-"+app) {
				t.Errorf("image %+v, error %v; want reason %q", have, err, c.reason)
			}
			if len(n.pulls) != c.pulls || !slices.Equal(n.reasons(), c.events) {
				t.Errorf("%d pulls, events %q; want %d, %q", len(n.pulls), n.events, c.pulls, c.events)
			}
		})
	}
}

func TestErrorsHaveKubeletsReasonsAndEvents(t *testing.T) {
	refused := errors.New("no such image")
	for _, c := range []struct {
		name   string
		image  string
		method string
		err    error
		reason string
		event  string // in words; empty: none
	}{
		{
			"not a name", strings.Repeat("a1", 32), "", nil, "InvalidImageName",
			"InspectFailed Failed to apply",
		},
		{"the runtime is away", app, "Image", refused, "ImageInspectError", ""},
		{"not found", app, "Pull", refused, "ErrImagePull", "Failed Failed to pull image"},
		{
			"the runtime knows better", app, "Pull", errors.New("invalid reference format"),
			"InvalidImageName", "Failed ",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, n := newPuller(t, nil)
			n.FailOn(c.method, c.err)
			_, err := p.Ensure(t.Context(), &v1.Pod{}, container(c.image, v1.PullIfNotPresent))
			if reason.Of(err) != c.reason {
				t.Errorf("error %v of reason %q, want %q", err, reason.Of(err), c.reason)
			}

			event := reason.EventOf(err)
			if (event != nil) != (c.event != "") {
				t.Fatalf("event %+v, want %q", event, c.event)
			}
			if event != nil && !strings.HasPrefix(event.Reason+" "+event.Message, c.event) {
				t.Errorf("event %+v, want %q", event, c.event)
			}
		})
	}
}

func TestAnImageWithoutATagIsTheLatest(t *testing.T) {
	p, n := newPuller(t, nil)
	have, err := p.Ensure(t.Context(), &v1.Pod{}, container("reg.example.com/app", v1.PullIfNotPresent))
	if err != nil || have.ID != "id-reg.example.com/app:latest" || len(n.pulls) != 1 {
		t.Errorf("%+v, %v", have, err)
	}
}

func TestContainersThatWaitForOneImageShareAPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, n := newPuller(t, nil)
		n.hold = make(chan struct{})
		var running sync.WaitGroup
		for range 5 {
			running.Go(func() {
				_, err := p.Ensure(t.Context(), &v1.Pod{}, container(app, v1.PullIfNotPresent))
				if err != nil {
					t.Error(err)
				}
			})
		}

		synctest.Wait()
		close(n.hold)
		running.Wait()
		if len(n.pulls) != 1 {
			t.Errorf("%d pulls", len(n.pulls))
		}
	})
}

func TestPullsAreBoundedAndCanBeGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, n := newPuller(t, func(c *Config) { c.Parallel = 2 })
		n.hold = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		errs := make(chan error, 5)
		for i := range 5 {
			running.Go(func() {
				image := fmt.Sprintf("reg.example.com/app:%d", i)
				_, err := p.Ensure(ctx, &v1.Pod{}, container(image, v1.PullIfNotPresent))
				errs <- err
			})
		}

		synctest.Wait()
		if n.running != 2 {
			t.Errorf("%d pulls at once, want 2", n.running)
		}

		cancel()
		running.Wait()
		for range 5 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("a pull that was given up failed: %v", err)
			}
		}
	})
}

func TestTheRegistryDecidesWhoMayUseAnImage(t *testing.T) {
	p, n := newPuller(t, nil)
	n.password = "right"
	n.give("owner", "right")
	n.give("thief", "wrong")
	n.give("guest", "right")
	for _, c := range []struct {
		namespace string
		policy    v1.PullPolicy
		reason    string
	}{
		{"thief", v1.PullIfNotPresent, "ErrImagePull"},
		{"owner", v1.PullIfNotPresent, ""},
		{"thief", v1.PullIfNotPresent, "ErrImagePull"},
		{"thief", v1.PullNever, "ErrImageNeverPull"},
		{"guest", v1.PullNever, ""}, // another secret of the same content
		{"owner", v1.PullNever, ""},
	} {
		_, err := p.Ensure(t.Context(), podIn(c.namespace), container(app, c.policy))
		if reason.Of(err) != c.reason || (err == nil) != (c.reason == "") {
			t.Errorf("%s with policy %s: %v, want reason %q", c.namespace, c.policy, err, c.reason)
		}
	}

	if want := []string{"wrong", "right", "wrong"}; !slices.Equal(n.pulls, want) {
		t.Errorf("pulled with %q, want %q: never without the credentials", n.pulls, want)
	}
}

func TestTheNodesOwnCredentialsAreReadForEachPull(t *testing.T) {
	password := "first"
	p, n := newPuller(t, func(c *Config) {
		c.NodeSecrets = func() ([]byte, error) { return dockerConfig(password), nil }
	})
	for _, password = range []string{"first", "second"} {
		if _, err := p.Ensure(t.Context(), &v1.Pod{}, container(app, v1.PullAlways)); err != nil {
			t.Fatal(err)
		}
	}

	if want := []string{"first", "second"}; !slices.Equal(n.pulls, want) {
		t.Errorf("pulled with %q, want %q", n.pulls, want)
	}
}

func TestAMissingPullSecretIsToldAndDoesNotKeepThePullBack(t *testing.T) {
	p, n := newPuller(t, nil)
	if _, err := p.Ensure(t.Context(), podIn("ns"), container(app, v1.PullIfNotPresent)); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(n.reasons(), "FailedToRetrieveImagePullSecret") {
		t.Errorf("events %q", n.events)
	}
}

// Nobody knows who may use an image that a pull has brought without its end being seen.
func TestAPullWhoseEndNobodySawOpensNothing(t *testing.T) {
	p, n := newPuller(t, nil)
	n.give("owner", "right")
	n.FailOn("Pull", status.Error(codes.Unavailable, "the runtime is restarted"))
	if _, err := p.Ensure(t.Context(), podIn("owner"), container(app, v1.PullIfNotPresent)); err == nil {
		t.Fatal("the pull did not fail")
	}
	n.images[app] = imageOf(app)
	_, err := p.Ensure(t.Context(), podIn("thief"), container(app, v1.PullNever))
	if reason.Of(err) != "ErrImageNeverPull" {
		t.Errorf("another pod got the image: %v", err)
	}
}
